//! The stored form of a log entry, which is also its form on the wire (docs/formats.md, "Metadata log").

use super::command::Command;
use super::raft_types::{Entry, Proposal, log_id};
use openraft::EntryPayload;
use prost::Message;
use std::io;
use std::sync::Arc;

/// First byte of a stored entry.
const ENTRY_FORMAT: u8 = 1;
const HEAD_BYTES: usize = 26;
const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The stored form of an entry: format, term, node, index, kind, payload.
pub(super) fn encode_entry(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.push(ENTRY_FORMAT);
    out.extend_from_slice(&entry.log_id.leader_id.term.to_be_bytes());
    out.extend_from_slice(&entry.log_id.leader_id.node_id.to_be_bytes());
    out.extend_from_slice(&entry.log_id.index.to_be_bytes());
    match &entry.payload {
        EntryPayload::Blank => out.push(KIND_BLANK),
        EntryPayload::Normal(proposal) => {
            out.push(KIND_COMMAND);
            proposal.0.encode(&mut out).map_err(io::Error::other)?;
        }
        EntryPayload::Membership(membership) => {
            out.push(KIND_MEMBERSHIP);
            out.extend(serde_json::to_vec(membership).map_err(io::Error::other)?);
        }
    }
    Ok(out)
}

/// Reads the stored form; an unknown format is refused.
pub(super) fn decode_entry(bytes: &[u8]) -> io::Result<Entry> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("metadata log entry: {what}"));
    let (head, payload) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| damaged("cut short"))?;
    if head.first() != Some(&ENTRY_FORMAT) {
        return Err(damaged("unknown format"));
    }
    let number = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let payload = match head.get(25) {
        Some(&KIND_BLANK) => EntryPayload::Blank,
        Some(&KIND_COMMAND) => {
            let command = Command::decode(payload).map_err(|e| damaged(&e.to_string()))?;
            EntryPayload::Normal(Proposal(Arc::new(command)))
        }
        Some(&KIND_MEMBERSHIP) => {
            EntryPayload::Membership(serde_json::from_slice(payload).map_err(|e| damaged(&e.to_string()))?)
        }
        _ => return Err(damaged("unknown kind")),
    };
    Ok(Entry { log_id: log_id(number(1), number(9), number(17)), payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::command::Kind;

    #[test]
    fn entries_come_back_and_nothing_else_is_taken_for_one() {
        let command = Command { kind: Some(Kind::KeyDelete("k".to_owned())), ..Command::default() };
        let payloads = [EntryPayload::Blank, EntryPayload::Normal(Proposal(Arc::new(command)))];
        for payload in payloads {
            let entry = Entry { log_id: log_id(3, 2, 9), payload };
            let stored = encode_entry(&entry).unwrap();
            assert_eq!(decode_entry(&stored).unwrap(), entry);
            for cut in 0..HEAD_BYTES {
                assert!(decode_entry(&stored[..cut]).is_err(), "{cut}");
            }
            for (at, value) in [(0, 2), (25, 9)] {
                let mut other = stored.clone();
                other[at] = value;
                assert!(decode_entry(&other).is_err(), "{at}");
            }
        }
    }
}
