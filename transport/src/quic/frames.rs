//! Cuts the bytes of a stream into frames, however they arrive. Pure: chunks in, frames out; bodies are not copied.
//!
//! **Invariant:** between calls it holds at most the frame under way and the chunks given since; what it holds is in
//! proportion to bytes received, also when they come in tiny packets (`tiny_pieces_do_not_pin_their_packets`).

use super::wire::{FRAME_HEAD_BYTES, Unreadable, decode_frame_head};
use crate::channel::Frame;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// A piece of a body below this is copied. It may be a slice of a datagram of 9 KiB or a batch of 64 KiB, which a sender of
/// tiny packets would have us keep whole.
const PIECE_BYTES_MIN: usize = 1024;
/// Copied pieces are passed on once there are so many bytes of them.
const GATHERED_BYTES: usize = 64 << 10;

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    Head {
        head: BytesMut,
        head_bytes: usize,
        body_bytes: usize,
    },
    Body {
        head: Bytes,
        body: Vec<Bytes>,
        gathered: BytesMut,
        left: usize,
        body_bytes: usize,
    },
}

impl FrameReader {
    /// The next bytes of the stream.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.arrived_bytes += chunk.len();
            self.arrived.push_back(chunk);
        }
    }

    /// `N` bytes in front of the first frame, once they are there.
    pub(super) fn poll_fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut out = [0; N];
        (self.arrived_bytes >= N).then(|| {
            self.copy_to(&mut out);
            out
        })
    }

    /// As many bytes as `out` holds in front of the first frame, once they are there.
    pub(super) fn poll_bytes(&mut self, out: &mut [u8]) -> bool {
        let there = self.arrived_bytes >= out.len();
        if there {
            self.copy_to(out);
        }
        there
    }

    /// The next whole frame.
    pub(super) fn poll_frame(&mut self) -> Result<Option<Frame>, Unreadable> {
        loop {
            match &mut self.state {
                State::Between => {
                    let Some(lengths) = self.poll_fixed::<FRAME_HEAD_BYTES>() else { return Ok(None) };
                    let (head_bytes, body_bytes) = decode_frame_head(&lengths)?;
                    self.state = State::Head { head: BytesMut::new(), head_bytes, body_bytes };
                }
                State::Head { head, head_bytes, body_bytes } => {
                    while head.len() < *head_bytes {
                        let Some(chunk) = take(&mut self.arrived, &mut self.arrived_bytes, *head_bytes - head.len())
                        else {
                            return Ok(None);
                        };
                        head.extend_from_slice(&chunk);
                    }
                    self.state = State::Body {
                        head: std::mem::take(head).freeze(),
                        body: Vec::new(),
                        gathered: BytesMut::new(),
                        left: *body_bytes,
                        body_bytes: *body_bytes,
                    };
                }
                State::Body { head, body, gathered, left, .. } => {
                    while *left > 0 {
                        let Some(chunk) = take(&mut self.arrived, &mut self.arrived_bytes, *left) else {
                            return Ok(None);
                        };
                        *left -= chunk.len();
                        gather(chunk, body, gathered);
                    }
                    if !gathered.is_empty() {
                        body.push(gathered.split().freeze());
                    }
                    let frame = Frame { head: std::mem::take(head), body: std::mem::take(body) };
                    self.state = State::Between;
                    return Ok(Some(frame));
                }
            }
        }
    }

    /// Bytes the frame under way will have; 0 between frames.
    pub(super) fn claimed_bytes(&self) -> usize {
        match &self.state {
            State::Between => 0,
            State::Head { head_bytes, body_bytes, .. } => head_bytes + body_bytes,
            State::Body { head, body_bytes, .. } => head.len() + body_bytes,
        }
    }

    /// Whether a stream that ends here ends between two frames.
    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Between) && self.arrived_bytes == 0
    }

    fn copy_to(&mut self, out: &mut [u8]) {
        let mut at = 0;
        while at < out.len() {
            let chunk = take(&mut self.arrived, &mut self.arrived_bytes, out.len() - at)
                .expect("the callers compared the length with what has arrived");
            out[at..at + chunk.len()].copy_from_slice(&chunk);
            at += chunk.len();
        }
    }
}

/// Up to `most` bytes from the front, in one piece.
fn take(arrived: &mut VecDeque<Bytes>, arrived_bytes: &mut usize, most: usize) -> Option<Bytes> {
    let front = arrived.front_mut()?;
    let piece = if front.len() <= most { arrived.pop_front()? } else { front.split_to(most) };
    *arrived_bytes -= piece.len();
    Some(piece)
}

fn gather(mut chunk: Bytes, body: &mut Vec<Bytes>, gathered: &mut BytesMut) {
    if chunk.len() < PIECE_BYTES_MIN {
        gathered.extend_from_slice(&chunk);
        chunk.advance(chunk.len());
    }
    if !gathered.is_empty() && (gathered.len() >= GATHERED_BYTES || !chunk.is_empty()) {
        body.push(gathered.split().freeze());
    }
    if !chunk.is_empty() {
        body.push(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::encode_frame_head;
    use super::*;
    use proptest::prelude::*;

    /// Head and body.
    type Parts = (Vec<u8>, Vec<u8>);

    fn encoded(frames: &[(usize, usize)]) -> (Vec<u8>, Vec<Parts>) {
        let mut bytes = Vec::new();
        let mut parts = Vec::new();
        for (n, &(head, body)) in frames.iter().enumerate() {
            let head: Vec<u8> = (0..head).map(|at| (at + n) as u8).collect();
            let body: Vec<u8> = (0..body).map(|at| (at * 7 + n) as u8).collect();
            let frame = Frame { head: head.clone().into(), body: vec![body.clone().into()] };
            bytes.extend_from_slice(&encode_frame_head(&frame).unwrap());
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(&body);
            parts.push((head, body));
        }
        (bytes, parts)
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in prop::collection::vec((0usize..300, 0usize..9000), 1..5),
            cuts in prop::collection::vec(1usize..5000, 1..40),
        ) {
            let (bytes, parts) = encoded(&frames);
            let mut stream = Bytes::from(bytes);
            let mut reader = FrameReader::default();
            let mut seen = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let cut = (*cuts.next().unwrap()).min(stream.len());
                reader.push(stream.split_to(cut));
                while let Some(frame) = reader.poll_frame().unwrap() {
                    seen.push((frame.head.to_vec(), frame.body.concat()));
                }
            }
            prop_assert!(reader.is_between_frames());
            prop_assert_eq!(seen, parts);
        }
    }

    #[test]
    fn large_pieces_of_a_body_are_passed_on_without_a_copy() {
        let (bytes, _) = encoded(&[(3, 100_000)]);
        let bytes = Bytes::from(bytes);
        let range = bytes.as_ptr_range();
        let mut reader = FrameReader::default();
        reader.push(bytes);
        let frame = reader.poll_frame().unwrap().unwrap();
        assert_eq!(frame.body.len(), 1);
        assert!(range.contains(&frame.body[0].as_ptr()));
    }

    #[test]
    fn tiny_pieces_do_not_pin_their_packets() {
        let (bytes, parts) = encoded(&[(0, 5000)]);
        let packets: Vec<Bytes> = bytes.iter().map(|byte| vec![*byte; 1400].into()).collect();
        let mut reader = FrameReader::default();
        let mut frame = None;
        for packet in &packets {
            reader.push(packet.slice(..1));
            frame = reader.poll_frame().unwrap();
        }
        assert!(packets.iter().all(Bytes::is_unique), "a packet is still held");
        let body = frame.unwrap().body;
        assert_eq!(body.len(), 1);
        assert_eq!(body.concat(), parts[0].1);
    }

    #[test]
    fn what_a_frame_claims_is_known_from_its_first_bytes_and_too_much_is_refused() {
        let (bytes, _) = encoded(&[(5, 1000)]);
        let mut reader = FrameReader::default();
        reader.push(Bytes::from(bytes).slice(..FRAME_HEAD_BYTES));
        assert_eq!(reader.poll_frame(), Ok(None));
        assert_eq!(reader.claimed_bytes(), 1005);
        assert!(!reader.is_between_frames());
        let mut reader = FrameReader::default();
        reader.push(Bytes::from_static(&[0xff; FRAME_HEAD_BYTES]));
        assert!(reader.poll_frame().is_err());
    }
}
