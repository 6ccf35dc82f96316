//! What was sent is what is understood, and what cannot be meant is refused.

use super::*;
use crate::ids::{BucketId, ClusterId, Epoch, PgId, SegmentId, Slot, VersionId};
use crate::node::{BackendHealth, BackendStatus, Cell, ScrubStep, ShardError, ShardRead, ShardStat, shard_root};
use crate::shard_header::ShardHeader;

fn backend() -> BackendId {
    BackendId([3; 16])
}

fn shard() -> ShardId {
    ShardId { pg: PgId(77), segment: SegmentId([2; 16]), slot: Slot(4) }
}

fn header(cell_bytes: u32, shard_bytes: u64) -> ShardHeader {
    ShardHeader {
        cluster: ClusterId([1; 16]),
        id: shard(),
        bucket: BucketId(9),
        key_hash: [3; 32],
        version: VersionId([4; 16]),
        scheme: [0x1d, 1, 4, 2],
        cell_bytes,
        shard_bytes,
        segment_bytes: 4 * shard_bytes,
        segment_offset: 0,
        created_ms: 1,
    }
}

fn errors() -> Vec<ShardError> {
    let (shard, backend, reason) = (shard(), backend(), "why: é".to_owned());
    vec![
        ShardError::NotFound { shard, backend },
        ShardError::Damaged { shard, backend, reason: reason.clone() },
        ShardError::NoSuchBackend { backend },
        ShardError::Unavailable { backend, reason: reason.clone() },
        ShardError::ReadOnly { backend, reason: reason.clone() },
        ShardError::Full { backend, free_bytes: 5, reserve_bytes: u64::MAX },
        ShardError::Busy { backend, queued: 12 },
        ShardError::Io { backend, action: "sync".to_owned(), reason: reason.clone() },
        ShardError::Invalid { reason },
        ShardError::StaleEpoch { got: Epoch(4), minimum: Epoch(9) },
    ]
}

#[test]
fn every_shard_error_comes_back_as_it_was() {
    for error in errors() {
        let reply: Reply = decode(&encode(&Reply::fault(&error))).unwrap();
        assert_eq!(reply.into_result::<Empty>(), Ok(Err(error)));
    }
    // A new variant must be added to the list above: this does not compile without it.
    let _ = |error: ShardError| match error {
        ShardError::NotFound { .. }
        | ShardError::Damaged { .. }
        | ShardError::NoSuchBackend { .. }
        | ShardError::Unavailable { .. }
        | ShardError::ReadOnly { .. }
        | ShardError::Full { .. }
        | ShardError::Busy { .. }
        | ShardError::Io { .. }
        | ShardError::Invalid { .. }
        | ShardError::StaleEpoch { .. } => {}
    };
}

#[test]
fn long_reasons_are_cut_at_a_character() {
    let error = ShardError::Invalid { reason: "é".repeat(TEXT_BYTES_MAX) };
    let ShardError::Invalid { reason } = ShardError::try_from(Fault::from(&error)).unwrap() else { panic!() };
    assert_eq!(reason.len(), TEXT_BYTES_MAX);
    assert!(
        ShardError::try_from(Fault { cause: 9, reason: "x".repeat(TEXT_BYTES_MAX + 1), ..Fault::default() }).is_err()
    );
}

#[test]
fn unknown_causes_and_healths_and_wrong_lengths_are_refused() {
    for cause in [0, 11, u32::MAX] {
        assert!(ShardError::try_from(Fault { cause, ..Fault::default() }).is_err(), "cause {cause}");
    }
    // A not-found without ids.
    assert!(ShardError::try_from(Fault { cause: 1, ..Fault::default() }).is_err());
    for health in [0, 7, u32::MAX] {
        assert!(BackendSummary { id: backend_bytes(backend()), health }.parse().is_err(), "health {health}");
    }
    let short = Bytes::from_static(&[1; 15]);
    assert!(NameBackend { backend: short.clone() }.parse().is_err());
    assert!(NameShard { backend: backend_bytes(backend()), shard: short.clone() }.parse().is_err());
    assert!(DeleteShards { backend: backend_bytes(backend()), shards: short.clone() }.parse().is_err());
    let many = Bytes::from(vec![0; (DELETE_SHARDS_MAX + 1) * ShardId::ENCODED_BYTES]);
    assert!(DeleteShards { backend: backend_bytes(backend()), shards: many }.parse().is_err());
    let root = ReadCells { expected_root: short, ..ReadCells::new(backend(), shard(), (0, 1), None) };
    assert!(root.parse().is_err());
    for cell_bytes in [0, CELL_BYTES_MAX + 1] {
        assert!(WriteBegin::new(backend(), &header(cell_bytes, 10)).parse().is_err(), "cells of {cell_bytes}");
    }
}

#[test]
fn requests_say_what_was_asked() {
    let (backend, shard) = (backend(), shard());
    assert_eq!(WriteBegin::new(backend, &header(64, 100)).parse(), Ok((backend, header(64, 100))));
    assert_eq!(ReadCells::new(backend, shard, (3, 4), None).parse(), Ok((backend, shard, None)));
    assert_eq!(ReadCells::new(backend, shard, (3, 4), Some([9; 32])).parse(), Ok((backend, shard, Some([9; 32]))));
    assert_eq!(NameShard::new(backend, shard).parse(), Ok((backend, shard)));
    assert_eq!(DeleteShards::new(backend, &[shard, shard]).parse(), Ok((backend, vec![shard; 2])));
    assert_eq!(ListShards::new(backend, PgId(1), Some(shard), 7).parse(), Ok((backend, Some(shard))));
    assert_eq!(ListShards::new(backend, PgId(1), None, 7).parse(), Ok((backend, None)));
    assert_eq!(ScrubShards::new(backend, Some(shard), 7).parse(), Ok((backend, Some(shard))));
    assert_eq!(NameBackend::new(backend).parse(), Ok(backend));
}

#[test]
fn replies_say_what_was_found() {
    let stat = ShardStat { id: shard(), shard_bytes: 1, cell_bytes: 2, root: [5; 32], verified_ms: 3 };
    assert_eq!(StatList::new(&[stat.clone(), stat.clone()]).parse(), Ok(vec![stat; 2]));
    let step = ScrubStep { shards: 4, bytes: 5, damaged: vec![shard()], next: Some(shard()) };
    assert_eq!(ScrubReply::new(&step).parse(), Ok(step));
    let healths = [
        BackendHealth::Online,
        BackendHealth::ReadOnly,
        BackendHealth::Missing,
        BackendHealth::Wiped,
        BackendHealth::Foreign,
        BackendHealth::Failed,
    ];
    for health in healths {
        let status = BackendStatus {
            id: backend(),
            name: "d1".to_owned(),
            location: "disk:/d1".to_owned(),
            health,
            reason: "r".to_owned(),
            capacity_bytes: 1,
            free_bytes: 2,
            used_bytes: 3,
            shard_count: 4,
            scrubbed_ms: 5,
        };
        assert_eq!(BackendList::new(std::slice::from_ref(&status)).parse(), Ok(vec![status]));
        assert_eq!(BackendSummary::new(backend(), health).parse(), Ok((backend(), health)));
    }
}

fn cells(lengths: &[usize]) -> Vec<Cell> {
    let cell = |(seed, &len): (usize, &usize)| {
        let bytes: Bytes = (0..len).map(|at| (at * 7 + seed) as u8).collect();
        Cell { hash: *blake3::hash(&bytes).as_bytes(), bytes }
    };
    lengths.iter().enumerate().map(cell).collect()
}

#[test]
fn cells_come_out_as_they_went_in_however_their_bytes_are_cut() {
    for lengths in [&[1][..], &[64, 64, 10], &[256; 5]] {
        let sent = cells(lengths);
        let (head, body) = WriteCells::new(sent.clone());
        let whole = body.concat();
        let same = |got: Vec<Cell>| got.iter().zip(&sent).all(|(a, b)| a.bytes == b.bytes && a.hash == b.hash);
        let uncopied = head.clone().into_cells(body).unwrap();
        assert!(uncopied.iter().zip(&sent).all(|(a, b)| a.bytes.as_ptr() == b.bytes.as_ptr()), "{lengths:?}");
        for piece in 1..=whole.len() {
            let body = whole.chunks(piece).flat_map(|piece| [Bytes::copy_from_slice(piece), Bytes::new()]).collect();
            assert!(same(head.clone().into_cells(body).unwrap()), "{lengths:?} in pieces of {piece}");
        }
    }
    let (head, body) = WriteCells::new(cells(&[64, 64]));
    assert!(head.clone().into_cells(vec![body[0].clone()]).is_err(), "too few bytes");
    assert!(head.clone().into_cells([&body[..], &[Bytes::from_static(b"x")]].concat()).is_err(), "too many");
    let hashes = head.hashes.slice(..32);
    assert!(WriteCells { hashes, ..head.clone() }.into_cells(body.clone()).is_err(), "a hash short");
    let empty = WriteCells { cell_bytes: vec![0, 128], ..head.clone() };
    assert!(empty.into_cells(body.clone()).is_err(), "an empty cell");
    let huge = WriteCells { cell_bytes: vec![u32::MAX; 2], ..head };
    assert!(huge.into_cells(body).is_err(), "more than came");
}

fn read_of(lengths: &[usize], first: usize, count: usize) -> ShardRead {
    let cells = cells(lengths);
    ShardRead {
        header: header(lengths[0] as u32, lengths.iter().sum::<usize>() as u64),
        bytes: cells[first..first + count].iter().flat_map(|cell| cell.bytes.to_vec()).collect(),
        damaged: Vec::new(),
        cell_hashes: cells.iter().map(|cell| cell.hash).collect(),
    }
}

#[test]
fn a_read_is_verified_against_the_root_and_each_cell() {
    let read = read_of(&[64, 64, 10], 1, 2);
    let root = shard_root(read.cell_hashes.iter().copied());
    let body: Vec<Bytes> = read.bytes.chunks(7).map(Bytes::copy_from_slice).collect();
    let mut got = ReadHead::new(&read).into_read(body, (1, 2)).unwrap();
    assert_eq!((&got.bytes, &got.cell_hashes, &got.header), (&read.bytes, &read.cell_hashes, &read.header));
    assert_eq!(got.verify(1, Some(root)), Ok(()));
    assert!(got.damaged.is_empty());
    assert!(got.verify(1, Some([0; 32])).is_err(), "another root");
    for at in 0..read.bytes.len() {
        let mut bytes = read.bytes.to_vec();
        bytes[at] ^= 1;
        let mut bent = ShardRead { bytes: bytes.into(), ..read.clone() };
        bent.verify(1, Some(root)).unwrap();
        assert_eq!(bent.damaged, [if at < 64 { 1 } else { 2 }], "byte {at}");
    }
    let mut fewer = ShardRead { cell_hashes: read.cell_hashes[..2].to_vec(), ..read.clone() };
    assert!(fewer.verify(1, None).is_err(), "a hash short");
}

#[test]
fn a_read_of_other_cells_than_asked_is_refused() {
    let read = read_of(&[64, 64, 10], 1, 2);
    let head = ReadHead::new(&read);
    for asked in [(0, 2), (1, 1), (2, 1), (3, 1), (u32::MAX, u32::MAX)] {
        assert!(head.clone().into_read(vec![read.bytes.clone()], asked).is_err(), "{asked:?}");
    }
    // To the end of the shard, though asked for more, is what there is.
    assert!(head.clone().into_read(vec![read.bytes.clone()], (1, 9)).is_ok());
    let damaged = ReadHead { damaged: vec![0], ..head.clone() };
    assert!(damaged.into_read(vec![read.bytes.clone()], (1, 2)).is_err(), "damage elsewhere");
    let hashes = ReadHead { cell_hashes: Bytes::from_static(&[0; 33]), ..head };
    assert!(hashes.into_read(vec![read.bytes], (1, 2)).is_err(), "half a hash");
}

/// Mangled messages of every kind, understood or refused, never worse.
#[test]
fn no_bytes_panic() {
    let (backend, shard) = (backend(), shard());
    let (cells_head, _) = WriteCells::new(cells(&[64, 10]));
    let mut samples: Vec<Vec<u8>> = errors().iter().map(|error| encode(&Reply::fault(error)).to_vec()).collect();
    samples.extend([
        encode(&WriteBegin::new(backend, &header(64, 100))).to_vec(),
        encode(&cells_head).to_vec(),
        encode(&ReadCells::new(backend, shard, (0, 5), Some([1; 32]))).to_vec(),
        encode(&ReadHead::new(&read_of(&[64, 10], 0, 2))).to_vec(),
        encode(&ListShards::new(backend, PgId(1), Some(shard), 5)).to_vec(),
        encode(&Pong { minimum_epoch: 1, load: Some(NodeLoad::default()), backends: vec![] }).to_vec(),
    ]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for sample in &samples {
        for _ in 0..2000 {
            let mut bytes = sample.clone();
            for _ in 0..=next() % 3 {
                let at = (next() % bytes.len() as u64) as usize;
                bytes[at] = next() as u8;
            }
            bytes.truncate((next() % (bytes.len() as u64 + 1)) as usize);
            digest(&bytes);
        }
    }
}

fn digest(bytes: &[u8]) {
    let body = vec![Bytes::from_static(&[7; 74])];
    let _ = decode::<Reply>(bytes).map(|m| m.into_result::<StatReply>());
    let _ = decode::<WriteBegin>(bytes).map(|m| m.parse());
    let _ = decode::<WriteCells>(bytes).map(|m| m.into_cells(body.clone()));
    let _ = decode::<ReadCells>(bytes).map(|m| m.parse());
    let _ = decode::<NameShard>(bytes).map(|m| m.parse());
    let _ = decode::<DeleteShards>(bytes).map(|m| m.parse());
    let _ = decode::<ListShards>(bytes).map(|m| m.parse());
    let _ = decode::<ScrubShards>(bytes).map(|m| m.parse());
    let _ = decode::<AddBackend>(bytes).map(|m| m.parse());
    let _ = decode::<StatList>(bytes).map(|m| m.parse());
    let _ = decode::<ScrubReply>(bytes).map(|m| m.parse());
    let _ = decode::<BackendList>(bytes).map(|m| m.parse());
    let _ = decode::<Pong>(bytes).map(|m| m.backends());
    let _ = decode::<ReadHead>(bytes).map(|m| {
        let mut read = m.into_read(body, (0, 2))?;
        read.verify(0, Some([0; 32])).map_err(Malformed::new)
    });
}
