//! Places in the write-ahead log, and what counts as having reached one.
//!
//! What always holds: two positions compare only as positions of one timeline; whoever compares makes sure
//! of that first. A position within a page's header is the same place as the page's start (see
//! [`Lsn::settled`]).

use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log (PostgreSQL's `pg_lsn`): the number of bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// How a server's log is cut: bytes in a page and in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGeometry {
    /// Bytes in a page (`wal_block_size`).
    pub page: u64,
    /// Bytes in a segment (`wal_segment_size`).
    pub segment: u64,
}

/// The header that starts each page, and the longer one that starts each segment.
const PAGE_HEADER: u64 = 24;
const SEGMENT_HEADER: u64 = 40;

impl Lsn {
    /// The same place without a page header's bytes.
    ///
    /// After a switch to a new segment the primary's position may lie behind the new page's header, where
    /// no record has begun; a replica that replayed everything stands before the header, for as long as
    /// nothing is written. Headers carry nothing, so a position within one moves down to the page's start.
    /// Without a known geometry the position stays as it is, which only ever asks for more.
    pub fn settled(self, geometry: Option<WalGeometry>) -> Self {
        let Some(WalGeometry { page, segment }) = geometry else {
            return self;
        };
        if page == 0 || segment == 0 {
            return self;
        }
        let header = if self.0 % segment < page {
            SEGMENT_HEADER
        } else {
            PAGE_HEADER
        };
        let beyond = self.0 % page;
        if beyond <= header {
            Self(self.0 - beyond)
        } else {
            self
        }
    }

    /// How many bytes of log lie between an earlier place and this one; zero if it is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        if earlier < self {
            self.0 - earlier.0
        } else {
            0
        }
    }
}

/// As PostgreSQL writes it: two hexadecimal halves with a slash between.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain
                .then(|| u32::from_str_radix(digits, 16).ok())
                .flatten()
                .map(u64::from)
        };
        let parsed = text
            .split_once('/')
            .and_then(|(high, low)| Some(half(high)? << 32 | half(low)?));
        parsed
            .map(Self)
            .ok_or_else(|| NotAnLsn(text.chars().take(40).collect()))
    }
}

/// A text that is no [`Lsn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnLsn(String);

impl fmt::Display for NotAnLsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a position in the log: two hexadecimal halves with a slash between",
            self.0
        )
    }
}

impl std::error::Error for NotAnLsn {}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Option<WalGeometry> = Some(WalGeometry {
        page: 8192,
        segment: 16 << 20,
    });

    fn lsn(text: &str) -> Lsn {
        text.parse().expect("a well-formed position")
    }

    #[test]
    fn a_position_reads_and_writes_as_the_server_does() {
        assert_eq!(lsn("16/B374D848"), Lsn(0x16_B374_D848));
        assert_eq!(lsn("16/B374D848").to_string(), "16/B374D848");
        for wrong in ["", "16", "16/", "/1", "1/2/3", "+1/2", "1/123456789", "g/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn after_a_switch_of_segments_the_header_does_not_count() {
        assert_eq!(
            lsn("0/3000028").settled(USUAL),
            lsn("0/3000000"),
            "a segment's header has 40 bytes"
        );
        assert_eq!(
            lsn("0/3002018").settled(USUAL),
            lsn("0/3002000"),
            "a page's header has 24 bytes"
        );
    }

    #[test]
    fn a_position_behind_a_header_stays() {
        for record in ["0/3000030", "0/3002020", "0/3002028", "0/3001FF8"] {
            assert_eq!(lsn(record).settled(USUAL), lsn(record));
        }
        assert_eq!(
            lsn("0/3000028").settled(None),
            lsn("0/3000028"),
            "unknown geometry moves nothing"
        );
    }

    #[test]
    fn a_gap_is_never_negative() {
        assert_eq!(lsn("0/20").bytes_since(lsn("0/10")), 0x10);
        assert_eq!(lsn("0/10").bytes_since(lsn("0/20")), 0);
    }
}
