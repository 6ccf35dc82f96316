//! The bytes of a call on a QUIC stream: the caller's opening, the server's answer to it, and the head of each frame.
//! Encode and decode only; `frames.rs` cuts a stream by them. Drawn in docs/formats.md, "Calls between nodes".
//!
//! **Invariant:** a length is judged before anything is kept for it.

use crate::channel::Frame;
use holdfast_proto::Epoch;
use holdfast_proto::rpc::{WIRE_VERSION, WIRE_VERSION_MIN};
use std::time::Duration;

/// Bytes of an opening.
pub(super) const OPENING_BYTES: usize = 40;
/// Bytes of an answer, before its reason.
pub(super) const ANSWER_BYTES: usize = 12;
/// Bytes of a frame's head.
pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// Longest reason of a refusal: a sentence for a log.
pub(super) const REASON_BYTES_MAX: usize = 512;
/// Longest deadline that is honoured: a snapshot of a large range over a slow link; a call that takes longer is a bug.
pub(super) const DEADLINE_MAX: Duration = Duration::from_secs(3600);

const OPENING_MAGIC: [u8; 4] = *b"HFcl";
const ANSWER_MAGIC: [u8; 4] = *b"HFan";
const FLAG_EPOCH: u32 = 1;

/// What a caller says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) version: u16,
    pub(super) rpc: u16,
    pub(super) deadline: Duration,
    pub(super) epoch: Option<Epoch>,
    pub(super) request_id: u128,
}

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Frames follow.
    Accepted,
    /// Nothing was done, and trying again will not help.
    Refused(String),
    /// Nothing was done; later it may be.
    Busy(String),
}

/// Bytes that are not what they should be, with what is wrong about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

impl Opening {
    pub(super) fn encode(&self) -> [u8; OPENING_BYTES] {
        let milliseconds = self.deadline.min(DEADLINE_MAX).as_millis();
        let flags = if self.epoch.is_some() { FLAG_EPOCH } else { 0 };
        let mut out = [0; OPENING_BYTES];
        out[..4].copy_from_slice(&OPENING_MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.rpc.to_le_bytes());
        out[8..12].copy_from_slice(&u32::try_from(milliseconds).unwrap_or(u32::MAX).to_le_bytes());
        out[12..16].copy_from_slice(&flags.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.map_or(0, |epoch| epoch.0).to_le_bytes());
        out[24..40].copy_from_slice(&self.request_id.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; OPENING_BYTES]) -> Result<Self, Unreadable> {
        if bytes[..4] != OPENING_MAGIC {
            return Err(Unreadable("not the opening of a call".into()));
        }
        let version = u16::from_le_bytes(field(bytes, 4));
        if !(WIRE_VERSION_MIN..=WIRE_VERSION).contains(&version) {
            return Err(Unreadable(format!(
                "wire version {version} is not spoken here, {WIRE_VERSION_MIN} to {WIRE_VERSION} are"
            )));
        }
        let flags = u32::from_le_bytes(field(bytes, 12));
        if flags & !FLAG_EPOCH != 0 {
            return Err(Unreadable(format!("flags {flags:#x} are not known in wire version {version}")));
        }
        let epoch = Epoch(u64::from_le_bytes(field(bytes, 16)));
        let deadline = Duration::from_millis(u32::from_le_bytes(field(bytes, 8)).into());
        Ok(Self {
            version,
            rpc: u16::from_le_bytes(field(bytes, 6)),
            deadline: deadline.min(DEADLINE_MAX),
            epoch: (flags & FLAG_EPOCH != 0).then_some(epoch),
            request_id: u128::from_le_bytes(field(bytes, 24)),
        })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (status, reason) = match self {
            Self::Accepted => (0, ""),
            Self::Refused(reason) => (1, reason.as_str()),
            Self::Busy(reason) => (2, reason.as_str()),
        };
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let mut out = Vec::with_capacity(ANSWER_BYTES + reason.len());
        out.extend_from_slice(&ANSWER_MAGIC);
        out.extend_from_slice(&WIRE_VERSION.to_le_bytes());
        out.extend_from_slice(&[status, 0]);
        out.extend_from_slice(&(reason.len() as u32).to_le_bytes());
        out.extend_from_slice(reason);
        out
    }

    /// Reads the fixed part: the answer still without its reason, and how many bytes of reason follow.
    pub(super) fn decode_fixed(bytes: &[u8; ANSWER_BYTES]) -> Result<(Self, usize), Unreadable> {
        if bytes[..4] != ANSWER_MAGIC {
            return Err(Unreadable("not the answer to a call".into()));
        }
        let reason_bytes = u32::from_le_bytes(field(bytes, 8)) as usize;
        if reason_bytes > REASON_BYTES_MAX {
            return Err(Unreadable(format!("a reason of {reason_bytes} bytes, {REASON_BYTES_MAX} are allowed")));
        }
        let answer = match bytes[6] {
            0 => Self::Accepted,
            1 => Self::Refused(String::new()),
            2 => Self::Busy(String::new()),
            status => return Err(Unreadable(format!("status {status} of an answer is not known"))),
        };
        Ok((answer, reason_bytes))
    }

    pub(super) fn with_reason(self, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(reason).into_owned();
        match self {
            Self::Accepted => Self::Accepted,
            Self::Refused(_) => Self::Refused(reason),
            Self::Busy(_) => Self::Busy(reason),
        }
    }
}

/// The lengths of a frame's two parts.
pub(super) fn encode_frame_head(frame: &Frame) -> Result<[u8; FRAME_HEAD_BYTES], Unreadable> {
    let lengths = (frame.head.len(), frame.body_bytes());
    judge_lengths(lengths)?;
    let mut out = [0; FRAME_HEAD_BYTES];
    out[..4].copy_from_slice(&(lengths.0 as u32).to_le_bytes());
    out[4..].copy_from_slice(&(lengths.1 as u32).to_le_bytes());
    Ok(out)
}

/// Bytes of head and body of the frame that follows.
pub(super) fn decode_frame_head(bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<(usize, usize), Unreadable> {
    let lengths = (u32::from_le_bytes(field(bytes, 0)) as usize, u32::from_le_bytes(field(bytes, 4)) as usize);
    judge_lengths(lengths)?;
    Ok(lengths)
}

fn judge_lengths((head, body): (usize, usize)) -> Result<(), Unreadable> {
    if head > Frame::HEAD_BYTES_MAX {
        return Err(Unreadable(format!("a head of {head} bytes, {} are allowed", Frame::HEAD_BYTES_MAX)));
    }
    if body > Frame::BODY_BYTES_MAX {
        return Err(Unreadable(format!("a body of {body} bytes, {} are allowed", Frame::BODY_BYTES_MAX)));
    }
    Ok(())
}

const _: () = assert!(Frame::HEAD_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(Frame::BODY_BYTES_MAX <= u32::MAX as usize);

/// `N` bytes at `at`; the caller's array is long enough.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn opening() -> Opening {
        Opening {
            version: 1,
            rpc: 10,
            deadline: Duration::from_millis(2_500),
            epoch: Some(Epoch(7)),
            request_id: 0x000102030405060708090a0b0c0d0e0f,
        }
    }

    /// Bytes of version 1, kept for ever.
    #[test]
    fn the_bytes_of_version_1_are_these() {
        let golden = |text: &str| -> Vec<u8> {
            let digits: String = text.split_whitespace().collect();
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
        };
        let with_epoch = "4846636c 0100 0a00 c4090000 01000000 0700000000000000 0f0e0d0c0b0a09080706050403020100";
        assert_eq!(opening().encode().to_vec(), golden(with_epoch));
        assert_eq!(Opening::decode(&opening().encode()), Ok(opening()));
        let without = Opening { epoch: None, rpc: 60, ..opening() };
        let text = "4846636c 0100 3c00 c4090000 00000000 0000000000000000 0f0e0d0c0b0a09080706050403020100";
        assert_eq!(without.encode().to_vec(), golden(text));
        assert_eq!(Answer::Accepted.encode(), golden("4846616e 0100 00 00 00000000"));
        assert_eq!(Answer::Refused("no".into()).encode(), golden("4846616e 0100 01 00 02000000 6e6f"));
        assert_eq!(Answer::Busy("full".into()).encode(), golden("4846616e 0100 02 00 04000000 66756c6c"));
        let frame = Frame { head: Bytes::from_static(b"abc"), body: vec![Bytes::from(vec![0; 65536])] };
        assert_eq!(encode_frame_head(&frame).unwrap().to_vec(), golden("03000000 00000100"));
    }

    #[test]
    fn what_is_not_an_opening_or_of_another_version_is_refused_by_cause() {
        let cases: [(usize, u8, &str); 4] =
            [(0, b'X', "not the opening"), (4, 0, "version 0"), (4, 2, "version 2"), (12, 3, "flags 0x3")];
        for (at, value, reason) in cases {
            let mut bytes = opening().encode();
            bytes[at] = value;
            let Unreadable(said) = Opening::decode(&bytes).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = "\u{e4}".repeat(REASON_BYTES_MAX);
        let bytes = Answer::Refused(long.clone()).encode();
        let (answer, reason_bytes) = Answer::decode_fixed(bytes[..ANSWER_BYTES].try_into().unwrap()).unwrap();
        assert_eq!(answer.with_reason(&bytes[ANSWER_BYTES..]), Answer::Refused(long[..reason_bytes].into()));
        assert_eq!(reason_bytes, REASON_BYTES_MAX);
    }

    #[test]
    fn lengths_above_the_limits_are_refused() {
        for (head, body, fits) in [
            (Frame::HEAD_BYTES_MAX, Frame::BODY_BYTES_MAX, true),
            (Frame::HEAD_BYTES_MAX + 1, 0, false),
            (0, Frame::BODY_BYTES_MAX + 1, false),
            (u32::MAX as usize, u32::MAX as usize, false),
        ] {
            let mut bytes = [0; FRAME_HEAD_BYTES];
            bytes[..4].copy_from_slice(&(head as u32).to_le_bytes());
            bytes[4..].copy_from_slice(&(body as u32).to_le_bytes());
            assert_eq!(decode_frame_head(&bytes).is_ok(), fits, "{head} {body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_read_from_the_wire_panics(opening: [u8; OPENING_BYTES], answer: [u8; ANSWER_BYTES]) {
            let _ = Opening::decode(&opening);
            if let Ok((_, reason_bytes)) = Answer::decode_fixed(&answer) {
                prop_assert!(reason_bytes <= REASON_BYTES_MAX);
            }
        }
    }
}
