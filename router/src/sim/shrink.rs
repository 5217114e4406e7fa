//! A story that breaks a promise, made shorter: acts are left out as long as it still breaks the same one.

use super::generate::Story;

/// The shortest story that leaving out leads to: larger pieces first, then single acts until none can go.
pub(super) fn shrink(story: &Story, breaks: impl Fn(&Story) -> bool) -> Story {
    let mut best = story.clone();
    let mut piece = best.acts.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < best.acts.len() {
            let mut tried = best.clone();
            let to = (from + piece).min(tried.acts.len());
            tried.acts.drain(from..to);
            if breaks(&tried) {
                best = tried;
                shorter = true;
            } else {
                from = to;
            }
        }
        if piece == 1 && !shorter {
            return best;
        }
        piece = if shorter { piece } else { piece.div_ceil(2) };
    }
}
