//! The layout of one word: a bit for each slot that is idle, and two flags.
//!
//! ```text
//!   63        62       61 ........................ 0
//!   CAREFUL   WAITING  idle bits, one a slot
//! ```
//! `WAITING`: somebody stands in the wait queue, or the pool is closed: nobody sets an idle bit without the
//! mutex. `CAREFUL`: connections are in overflow: a return may be one too many.

use std::fmt;

const WAITING: u64 = 1 << 62;
const CAREFUL: u64 = 1 << 63;
const IDLE: u64 = WAITING - 1;

/// The position of one slot in its word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bit(u8);

impl Bit {
    pub(crate) fn new(index: usize) -> Self {
        debug_assert!(index < 62, "a word has 62 idle bits");
        #[allow(clippy::cast_possible_truncation, reason = "below 62")]
        Self(index as u8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    #[inline]
    pub(crate) fn mask(self) -> u64 {
        1 << self.0
    }
}

/// One reading of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// No bit set, no flag up.
    pub(crate) const EMPTY: Self = Self(0);

    #[inline]
    pub(crate) fn lowest_idle(self) -> Option<Bit> {
        let idle = self.0 & IDLE;
        #[allow(clippy::cast_possible_truncation, reason = "below 62")]
        (idle != 0).then(|| Bit(idle.trailing_zeros() as u8))
    }

    #[inline]
    pub(crate) fn idle_count(self) -> u32 {
        (self.0 & IDLE).count_ones()
    }

    #[inline]
    pub(crate) fn has(self, bit: Bit) -> bool {
        self.0 & bit.mask() != 0
    }

    #[inline]
    pub(crate) fn without_idle(self, bit: Bit) -> Self {
        Self(self.0 & !bit.mask())
    }

    /// Whether a return may have to take the mutex.
    #[inline]
    pub(crate) fn has_flags(self) -> bool {
        self.0 & !IDLE != 0
    }

    #[inline]
    pub(crate) fn with_idle(self, bit: Bit) -> Self {
        Self(self.0 | bit.mask())
    }

    pub(crate) fn with_flag(self, flag: Flag) -> Self {
        Self(self.0 | flag.mask())
    }

    #[inline]
    pub(crate) fn has_flag(self, flag: Flag) -> bool {
        self.0 & flag.mask() != 0
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:b}{}{}",
            self.0 & IDLE,
            if self.has_flag(Flag::Waiting) {
                " WAITING"
            } else {
                ""
            },
            if self.has_flag(Flag::Careful) {
                " CAREFUL"
            } else {
                ""
            }
        )
    }
}

/// The two reasons why a return may have to take the mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Waiting,
    Careful,
}

impl Flag {
    #[inline]
    pub(crate) fn mask(self) -> u64 {
        match self {
            Self::Waiting => WAITING,
            Self::Careful => CAREFUL,
        }
    }
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn bits_and_flags_do_not_overlap_and_read_back() {
        let top = Bit::new(61);
        let word = Word::EMPTY.with_idle(top).with_idle(Bit::new(3));
        assert_eq!(word.idle_count(), 2);
        assert_eq!(
            word.lowest_idle(),
            Some(Bit::new(3)).filter(|bit| word.has(*bit))
        );
        assert!(
            !word.has_flags(),
            "an idle bit is no reason to take the mutex"
        );
        for flag in [Flag::Waiting, Flag::Careful] {
            let flagged = word.with_flag(flag);
            assert!(flagged.has_flags() && flagged.has_flag(flag));
            assert_eq!(flagged.idle_count(), 2, "a flag is not an idle bit");
        }
        assert_eq!(Word::EMPTY.with_flag(Flag::Waiting).lowest_idle(), None);
    }

    impl fmt::Debug for Bit {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "bit {}", self.0)
        }
    }
}
