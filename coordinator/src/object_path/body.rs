//! A request's body as the object path reads it: counted, held against its declared length and the limit, and copied
//! once, into cells.
//!
//! **Invariant:** never hands out more bytes than the limit or the declared length; a body that ends early is an error.

use super::api::{BodyError, BodyStream, ObjectError};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;

/// Reads a body.
pub(crate) struct BodyReader {
    stream: BodyStream,
    /// Received, not yet taken.
    pending: VecDeque<Bytes>,
    received: u64,
    declared: Option<u64>,
    limit: u64,
    has_ended: bool,
}

impl BodyReader {
    /// Reads `stream`, of which exactly `declared` bytes are expected if given, and never more than `limit`.
    pub(crate) fn new(stream: BodyStream, declared: Option<u64>, limit: u64) -> Result<Self, ObjectError> {
        if declared.is_some_and(|bytes| bytes > limit) {
            return Err(ObjectError::TooLarge { limit });
        }
        Ok(Self { stream, pending: VecDeque::new(), received: 0, declared, limit, has_ended: false })
    }

    /// Waits until more than `bytes` have arrived, or the body has ended. Returns the whole body if it is no longer
    /// than that.
    pub(crate) async fn take_short(&mut self, bytes: u64) -> Result<Option<Bytes>, ObjectError> {
        while !self.has_ended && self.received <= bytes {
            self.receive().await?;
        }
        if self.received > bytes {
            return Ok(None);
        }
        // Copied even if it is one piece: a few bytes would keep the connection's whole buffer for as long as the metadata
        // keeps the record in memory.
        let mut whole = Vec::with_capacity(usize::try_from(self.received).unwrap_or(0));
        self.pending.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
        Ok(Some(Bytes::from(whole)))
    }

    /// Fills `target` from its start; returns how many bytes there were: fewer only at the body's end.
    pub(crate) async fn fill(&mut self, target: &mut [u8]) -> Result<usize, ObjectError> {
        let mut filled = 0;
        while filled < target.len() {
            let Some(mut bytes) = self.pending.pop_front() else {
                if self.has_ended {
                    break;
                }
                self.receive().await?;
                continue;
            };
            let piece = bytes.split_to(bytes.len().min(target.len() - filled));
            target[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
            if !bytes.is_empty() {
                self.pending.push_front(bytes);
            }
        }
        Ok(filled)
    }

    /// Whether all bytes were taken and the body has ended; waits for the next bytes or the end to know.
    pub(crate) async fn is_at_end(&mut self) -> Result<bool, ObjectError> {
        while self.pending.is_empty() && !self.has_ended {
            self.receive().await?;
        }
        Ok(self.pending.is_empty())
    }

    /// Takes the next item of the stream.
    async fn receive(&mut self) -> Result<(), ObjectError> {
        let Some(item) = self.stream.next().await else {
            self.has_ended = true;
            return match self.declared {
                Some(declared) if declared != self.received => {
                    let reason = format!("{} of {declared} bytes", self.received);
                    Err(BodyError::Incomplete { reason }.into())
                }
                _ => Ok(()),
            };
        };
        let bytes = item?;
        self.received = self.received.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.declared.is_some_and(|declared| self.received > declared) {
            let reason = format!("more than the {} bytes declared", self.declared.unwrap_or_default());
            return Err(BodyError::Malformed { reason }.into());
        }
        if self.received > self.limit {
            return Err(ObjectError::TooLarge { limit: self.limit });
        }
        if !bytes.is_empty() {
            self.pending.push_back(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static str]) -> BodyStream {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        futures::stream::iter(pieces).boxed()
    }

    #[tokio::test]
    async fn lengths_are_held_against_the_bytes() {
        async fn check(pieces: &[&'static str], declared: Option<u64>, limit: u64) -> Result<usize, ObjectError> {
            let mut reader = BodyReader::new(body(pieces), declared, limit)?;
            let mut target = [0; 100];
            let filled = reader.fill(&mut target).await?;
            assert!(reader.is_at_end().await?);
            assert_eq!(std::str::from_utf8(&target[..filled]).unwrap(), pieces.concat());
            Ok(filled)
        }
        assert_eq!(check(&["ab", "", "cde"], None, 5).await, Ok(5));
        assert_eq!(check(&["ab", "cde"], Some(5), 5).await, Ok(5));
        assert_eq!(check(&["ab", "cde"], None, 4).await, Err(ObjectError::TooLarge { limit: 4 }));
        assert_eq!(check(&[], Some(5), 4).await, Err(ObjectError::TooLarge { limit: 4 }));
        let short = check(&["ab"], Some(5), 9).await;
        assert!(matches!(short, Err(ObjectError::Body(BodyError::Incomplete { .. }))), "{short:?}");
        let long = check(&["ab", "cdef"], Some(5), 9).await;
        assert!(matches!(long, Err(ObjectError::Body(BodyError::Malformed { .. }))), "{long:?}");
    }

    #[tokio::test]
    async fn a_short_body_is_taken_whole_and_a_long_one_left() {
        for (pieces, short) in [(vec!["ab", "c"], true), (vec!["abc"], true), (vec![], true), (vec!["ab", "cd"], false)]
        {
            let mut reader = BodyReader::new(body(&pieces), None, 100).unwrap();
            let taken = reader.take_short(3).await.unwrap();
            assert_eq!(taken.as_deref(), short.then_some(pieces.concat().as_bytes()));
            if !short {
                let mut target = [0; 3];
                assert_eq!(reader.fill(&mut target).await, Ok(3));
                assert!(!reader.is_at_end().await.unwrap());
                assert_eq!(reader.fill(&mut target).await, Ok(1));
                assert!(reader.is_at_end().await.unwrap());
            }
        }
    }
}
