//! What is remembered of what the server said: tags of finished commands and codes of notices, in order.
//!
//! Each fits into a few bytes, so that recording a command allocates nothing.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;

/// How many tags and notices are remembered.
pub(super) const REMEMBERED: usize = 128;
/// How much of a tag is kept. The words that matter are shorter; what may be cut off is the number of rows.
const TAG: usize = 31;

/// The tag of a finished command, as `INSERT 0 1`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    bytes: [u8; TAG],
    length: u8,
}

impl Tag {
    /// The tag in a frame's body: a C string.
    pub(super) fn new(body: &[u8]) -> Self {
        let text = c_string(body);
        let kept = &text[..text.len().min(TAG)];
        let mut bytes = [0; TAG];
        bytes[..kept.len()].copy_from_slice(kept);
        Self {
            bytes,
            length: u8::try_from(kept.len()).unwrap_or(0),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Deref for Tag {
    type Target = str;

    fn deref(&self) -> &str {
        // A server's tags are of ASCII.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl PartialEq<str> for Tag {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Tag {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// A SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code([u8; 5]);

impl Code {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut code = [b'0'; 5];
        for (place, byte) in code.iter_mut().zip(text) {
            *place = *byte;
        }
        Self(code)
    }
}

impl PartialEq<str> for Code {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Code {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// One thing that the server said.
#[derive(Clone, Copy)]
pub(super) enum Event {
    Tag(Tag),
    Notice(Code),
}

/// The latest events, oldest first.
pub(super) struct Events {
    events: VecDeque<Event>,
    /// How many came before the first of them.
    forgotten: usize,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            events: VecDeque::new(),
            forgotten: 0,
        }
    }

    pub(super) fn note(&mut self, event: Event) {
        if self.events.len() == REMEMBERED {
            self.events.pop_front();
            self.forgotten += 1;
        }
        self.events.push_back(event);
    }

    /// How many there were so far.
    pub(super) fn count(&self) -> usize {
        self.forgotten + self.events.len()
    }

    pub(super) fn since(&self, mark: usize) -> Since {
        let mut since = Since::default();
        for event in self.events.iter().skip(mark.saturating_sub(self.forgotten)) {
            match event {
                Event::Tag(tag) => since.tags.push(*tag),
                Event::Notice(code) => since.notices.push(*code),
            }
        }
        since
    }
}

/// What was recorded since a mark.
#[derive(Debug, Default)]
pub(crate) struct Since {
    pub(crate) tags: Vec<Tag>,
    /// SQLSTATEs of notices and warnings.
    pub(crate) notices: Vec<Code>,
}

/// The bytes before the first zero.
pub(super) fn c_string(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}
