//! Frames, followed by their headers over any split of the bytes.
//!
//! A frame is a type byte, a length and a body; the first message of a connection has no type byte. Bodies are
//! skipped as they pass, and kept up to [`KEPT`] bytes where somebody wants them.

use std::io;

/// How much of a frame is kept: more than any tag, notice code or offer of authentication needs.
pub(super) const KEPT: usize = 1024;

/// Follows frames by their headers, over any split of the bytes.
pub(super) struct Frames {
    /// The header so far: a type byte (unless it is the first message of all) and a length.
    header: [u8; 5],
    have: usize,
    /// Whether the next frame has no type byte.
    untyped: bool,
    /// How much of the current frame's body is still to come.
    body: u32,
    in_body: bool,
    kept: Vec<u8>,
}

impl Frames {
    pub(super) fn typed() -> Self {
        Self {
            header: [0; 5],
            have: 0,
            untyped: false,
            body: 0,
            in_body: false,
            kept: Vec::new(),
        }
    }

    pub(super) fn start_up() -> Self {
        // As if a type byte had been read.
        Self {
            have: 1,
            untyped: true,
            ..Self::typed()
        }
    }

    /// Takes bytes in. `keep` says of which types the body is wanted; `done` gets each frame with what was kept
    /// of it. A frame of more than `longest` bytes is an error.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        longest: usize,
        keep: impl Fn(u8) -> bool,
        mut done: impl FnMut(u8, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() || (self.in_body && self.body == 0) {
            if !self.in_body {
                let take = (5 - self.have).min(bytes.len());
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < 5 {
                    return Ok(());
                }
                let [_, a, b, c, d] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]);
                if length < 4 || length as usize > longest {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "the server announced a message of {length} bytes, and the longest that is taken has {longest}"
                        ),
                    ));
                }
                self.body = length - 4;
                self.in_body = true;
                self.kept.clear();
            }
            let kind = self.header[0];
            let take = bytes.len().min(self.body as usize);
            if keep(kind) && self.kept.len() < KEPT {
                let room = KEPT - self.kept.len();
                self.kept.extend_from_slice(&bytes[..take.min(room)]);
            }
            bytes = &bytes[take..];
            self.body -= u32::try_from(take).unwrap_or(u32::MAX);
            if self.body == 0 {
                if !std::mem::take(&mut self.untyped) {
                    done(kind, &self.kept)?;
                }
                self.have = 0;
                self.in_body = false;
            }
        }
        Ok(())
    }
}
