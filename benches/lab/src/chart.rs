//! Charts as SVG inside a page, in the colours of its scheme.

use std::fmt::Write as _;

use crate::policies::Series;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// About so many marks on an axis.
const MARKS: f64 = 5.0;

/// How a chart is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// What the chart shows, for those who can't see it.
    pub title: &'a str,
    /// The horizontal axis.
    pub across: &'a str,
    /// The vertical axis.
    pub up: &'a str,
    /// Whether the vertical axis is logarithmic.
    pub log: bool,
}

/// One axis: what it spans, and where its marks are.
struct Scale {
    from: f64,
    to: f64,
    marks: Vec<f64>,
    log: bool,
}

impl Scale {
    fn linear(values: impl Iterator<Item = f64> + Clone, from_zero: bool) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let from = if from_zero { low.min(0.0) } else { low };
        let span = (high - from).max(1e-9);
        let rough = span / MARKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|times| times * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let from = (from / step).floor() * step;
        let mut marks = vec![from];
        while let Some(last) = marks.last()
            && *last < high - step * 1e-6
        {
            marks.push(last + step);
        }
        let to = *marks.last().unwrap_or(&high);
        let log = false;
        Self {
            from,
            to,
            marks,
            log,
        }
    }

    fn log(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values
            .clone()
            .filter(|value| *value > 0.0)
            .fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let (from, to) = (low.log10().floor(), high.log10().ceil());
        let mut marks = Vec::new();
        let mut power = from;
        while power <= to {
            marks.push(10_f64.powf(power));
            power += 1.0;
        }
        let (from, to) = (10_f64.powf(from), 10_f64.powf(to.max(from + 1.0)));
        Self {
            from,
            to,
            marks,
            log: true,
        }
    }

    /// Where a value lies, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        if self.log {
            let value = value.max(self.from);
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

fn label(value: f64) -> String {
    let value = if value.abs() < 1e-9 { 0.0 } else { value };
    if value != 0.0 && value.abs() < 0.01 {
        format!("{value:.0e}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Text that is safe within HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The class beside a line's own that makes it dashed, where it is.
fn dashed(line: &Series) -> &'static str {
    if line.name.starts_with("expected") {
        " dashed"
    } else {
        ""
    }
}

/// Draws lines, with a legend. Names that begin with "expected" are dashed.
pub fn draw(axes: Axes<'_>, series: &[Series]) -> String {
    let points = series.iter().flat_map(|line| line.points.iter().copied());
    let horizontal = Scale::linear(points.clone().map(|point| point.0), false);
    let values = points
        .map(|point| point.1)
        .filter(|value| value.is_finite());
    let vertical = if axes.log {
        Scale::log(values)
    } else {
        Scale::linear(values, true)
    };
    let x = |value: f64| LEFT + horizontal.part(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - vertical.part(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(axes.title)
    );
    for mark in &vertical.marks {
        let (at, text) = (y(*mark), label(*mark));
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"end\">{text}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
    }
    for mark in &horizontal.marks {
        let (at, text) = (x(*mark), label(*mark));
        let _ = write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" class=\"middle\">{text}</text>",
            HEIGHT - BOTTOM + 17.0
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"middle\">{}</text><text class=\"middle\" \
         transform=\"translate(13 {:.1}) rotate(-90)\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(axes.across),
        f64::midpoint(TOP, HEIGHT - BOTTOM),
        escape(axes.up)
    );
    for (number, line) in series.iter().enumerate() {
        let dashed = dashed(line);
        let dots = line.points.iter().filter(|point| point.1.is_finite());
        let path: Vec<_> = dots
            .clone()
            .map(|(at, value)| format!("{:.1} {:.1}", x(*at), y(*value)))
            .collect();
        let _ = write!(
            svg,
            "<path class=\"line s{number}{dashed}\" d=\"M{}\"/>",
            path.join("L")
        );
        for (at, value) in dots.filter(|_| dashed.is_empty()) {
            let _ = write!(
                svg,
                "<circle class=\"dot s{number}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{}: {} at {}</title></circle>",
                x(*at),
                y(*value),
                escape(&line.name),
                label(*value),
                label(*at)
            );
        }
    }
    svg.push_str("</svg><ul class=\"legend\">");
    for (number, line) in series.iter().enumerate() {
        let _ = write!(
            svg,
            "<li><span class=\"key s{number}{}\"></span>{}</li>",
            dashed(line),
            escape(&line.name)
        );
    }
    svg.push_str("</ul>");
    svg
}
