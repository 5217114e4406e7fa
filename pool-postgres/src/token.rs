//! Commit tokens: a place in a primary's log that later reads can ask for.
//!
//! A token belongs to one cluster (its system identifier). Tokens of the same cluster have an order: by
//! timeline, then by position. Tokens of different clusters have none.

use std::cmp::Ordering;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The place in the log at which a transaction's commit is to be found.
///
/// A read that must see that transaction goes to a server that has replayed the log up to here. The text
/// form suits a header, a cookie or the payload of a job: it is short, of letters, digits and dots only,
/// and parses back to the same token.
///
/// ```
/// use pool_postgres::CommitToken;
///
/// let token: CommitToken = "1.66fa1b2c3d4e5f60.1.3000148.s".parse()?;
/// assert_eq!(token.timeline, 1);
/// assert_eq!(token.to_string(), "1.66fa1b2c3d4e5f60.1.3000148.s");
/// # Ok::<(), pool_postgres::TokenError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitToken {
    /// Which cluster: PostgreSQL's `system_identifier`.
    pub system_identifier: u64,
    /// Which history of that cluster: raised at each promotion.
    pub timeline: u32,
    /// The position in the log (an LSN), at or beyond the commit's end.
    pub position: u64,
    /// What is known of the commit's durability.
    pub strength: Strength,
}

/// Whether the position of a [`CommitToken`] is sure to hold its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// `synchronous_commit` was `off` or `local`: the commit may not have been flushed, or not on the
    /// synchronous standbys, when the position was read.
    Weak,
    /// The commit lies at or below the position, flushed.
    Strong,
}

impl CommitToken {
    /// The greater of two tokens of the same cluster; `None` if they are of different clusters.
    pub fn merge(self, other: Self) -> Option<Self> {
        Some(match self.partial_cmp(&other)? {
            Ordering::Less => other,
            Ordering::Greater | Ordering::Equal => self,
        })
    }
}

/// Only tokens of the same cluster are ordered. At the same place the weak one is the greater: it asks for
/// more care.
impl PartialOrd for CommitToken {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.system_identifier == other.system_identifier).then(|| {
            (self.timeline, self.position, other.strength).cmp(&(
                other.timeline,
                other.position,
                self.strength,
            ))
        })
    }
}

impl fmt::Display for CommitToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let strength = match self.strength {
            Strength::Strong => 's',
            Strength::Weak => 'w',
        };
        write!(
            f,
            "1.{:x}.{:x}.{:x}.{strength}",
            self.system_identifier, self.timeline, self.position
        )
    }
}

impl FromStr for CommitToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let error = |reason| TokenError {
            input: shortened(text),
            reason,
        };
        let parts: Vec<&str> = text.split('.').collect();
        let [version, system, timeline, position, strength] = parts[..] else {
            return Err(error("it has not five parts"));
        };
        if version != "1" {
            return Err(error("its version is not 1"));
        }
        let system_identifier =
            hex(system).ok_or_else(|| error("its system identifier is not hexadecimal"))?;
        let timeline = hex(timeline)
            .and_then(|timeline| u32::try_from(timeline).ok())
            .filter(|timeline| *timeline > 0)
            .ok_or_else(|| error("its timeline is not a positive hexadecimal number"))?;
        let position = hex(position).ok_or_else(|| error("its position is not hexadecimal"))?;
        let strength = match strength {
            "s" => Strength::Strong,
            "w" => Strength::Weak,
            _ => return Err(error("it ends in neither `s` nor `w`")),
        };
        Ok(Self {
            system_identifier,
            timeline,
            position,
            strength,
        })
    }
}

/// Stricter than `from_str_radix`, which takes a sign: one token has one text.
fn hex(digits: &str) -> Option<u64> {
    let plain = digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let canonical = digits == "0" || !digits.starts_with('0');
    (plain && canonical)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// What of a refused token is quoted: it may come from anybody.
fn shortened(text: &str) -> String {
    const QUOTED: usize = 80;
    let mut quoted: String = text.chars().take(QUOTED).collect();
    if text.chars().nth(QUOTED).is_some() {
        quoted.push('…');
    }
    quoted
}

/// A text that is no [`CommitToken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError {
    input: String,
    reason: &'static str,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a commit token: {}; pass on what `Committed::token` gave, unchanged",
            self.input, self.reason
        )
    }
}

impl Error for TokenError {}

/// A position as PostgreSQL writes it: two hexadecimal halves with a slash between.
pub(crate) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (
        u32::from_str_radix(high, 16).ok()?,
        u32::from_str_radix(low, 16).ok()?,
    );
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> CommitToken {
        text.parse().expect("a well-formed token")
    }

    #[test]
    fn a_token_parses_back_to_itself() {
        for text in [
            "1.0.1.0.s",
            "1.ffffffffffffffff.ffffffff.ffffffffffffffff.w",
        ] {
            assert_eq!(token(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_input_and_the_reason() {
        for (text, reason) in [
            ("", "five parts"),
            ("1.a.1.2", "five parts"),
            ("2.a.1.2.s", "version"),
            ("1.+a.1.2.s", "system identifier"),
            ("1.a.0.2.s", "timeline"),
            ("1.a.100000000.2.s", "timeline"),
            ("1.a.1.A.s", "position"),
            ("1.a.1.02.s", "position"),
            ("1.a.1..s", "position"),
            ("1.a.1.11112222333344445.s", "position"),
            ("1.a.1.2.x", "neither"),
        ] {
            let error = text.parse::<CommitToken>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
        let long = "x"
            .repeat(5000)
            .parse::<CommitToken>()
            .expect_err("too long")
            .to_string();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn the_greater_token_wins_and_only_within_a_cluster() {
        let (low, high) = (token("1.a.1.ff.s"), token("1.a.2.1.s"));
        assert_eq!(low.merge(high), Some(high));
        assert_eq!(high.merge(low), Some(high));
        assert_eq!(low.merge(token("1.b.1.ff.s")), None);
        let weak = token("1.a.1.ff.w");
        assert_eq!((low.merge(weak), weak.merge(low)), (Some(weak), Some(weak)));
    }

    #[test]
    fn a_position_is_read_as_the_server_writes_it() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("16B374D848"), None);
    }
}
