//! Newline-delimited JSON: bytes as they come from a stream in, whole lines out. Pure.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

use super::MAX_LINE;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a line of the stream is longer than {MAX_LINE} bytes")]
pub(crate) struct TooLong;

/// Cuts a stream into lines. Holds at most one line and the chunk it came with.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// So far the buffer holds no newline.
    searched: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole line, without its newline; `None` until more bytes are pushed.
    ///
    /// # Errors
    /// When a line exceeds [`MAX_LINE`]; the stream cannot be continued.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let unseen = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(offset) = unseen.iter().position(|b| *b == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > MAX_LINE { Err(TooLong) } else { Ok(None) };
        };
        let length = self.searched + offset;
        if length > MAX_LINE {
            return Err(TooLong);
        }
        let line = self.buffer.split_to(length).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(line))
    }
}

/// One message as one line.
pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_stream_is_cut(text in "[a-z\\n]{0,80}", cuts in prop::collection::vec(1usize..9, 0..40)) {
            let mut lines = Lines::default();
            let (mut rest, mut found) = (text.as_bytes(), Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                lines.push(chunk);
                while let Some(line) = lines.next().expect("short lines") {
                    found.push(String::from_utf8(line.to_vec()).expect("ASCII"));
                }
                rest = after;
            }
            let mut expected: Vec<_> = text.split('\n').map(str::to_owned).collect();
            expected.pop();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_endless_line_ends_the_stream() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(lines.next(), Err(TooLong));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE]);
        lines.push(b"\n");
        assert_eq!(lines.next().map(|line| line.map(|l| l.len())), Ok(Some(MAX_LINE)));
    }
}
