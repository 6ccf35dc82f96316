//! `holdfast object inspect` for people: each shard, where it is and how.

use super::{Look, Tone, columns, words};
use holdfast_proto::admin::{ObjectView, ShardView};
use holdfast_sdk::byte_size;

/// The object in a line, then its segments with their shards.
pub(crate) fn table(object: &ObjectView, look: Look) -> String {
    let mut text = format!(
        "s3://{}/{}  version {}  {}  etag {}  written {}\n",
        object.bucket,
        object.key,
        object.version,
        byte_size::format(object.bytes),
        object.etag,
        words::moment(object.modified_ms)
    );
    if object.inline {
        return text + "its bytes live in the metadata record\n";
    }
    text += &format!("scheme {}, can lose {} more of its shards\n", object.scheme, object.margin);
    for segment in &object.segments {
        text += &format!(
            "segment {}  pg {}  {} from byte {}\n",
            segment.segment,
            segment.pg,
            byte_size::format(segment.bytes),
            segment.offset
        );
        let rows = segment.shards.iter().map(|shard| row(shard, look)).collect();
        text += &columns(&["  SLOT", "ROLE", "BACKEND", "STATE", "BYTES", "VERIFIED"], rows, &[0, 4]);
    }
    text
}

fn row(shard: &ShardView, look: Look) -> Vec<String> {
    let tone = match shard.state.as_str() {
        "ok" => Tone::Good,
        "unavailable" => Tone::Warning,
        _ => Tone::Bad,
    };
    vec![
        shard.slot.to_string(),
        shard.role.clone(),
        shard.backend_name.clone(),
        look.paint(tone, &shard.state),
        byte_size::format(shard.shard_bytes),
        if shard.verified_ms == 0 { "unknown".to_owned() } else { words::ago(shard.verified_ms, look.now_ms) },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::backends::tests::LOOK;
    use super::*;
    use holdfast_proto::BackendId;
    use holdfast_proto::admin::SegmentView;

    #[test]
    fn snapshot() {
        let shard = |slot: u8, state: &str| ShardView {
            slot,
            role: if slot < 4 { "data" } else { "parity" }.into(),
            backend: BackendId([slot; 16]),
            backend_name: format!("d{}", slot + 1),
            state: state.into(),
            verified_ms: if state == "ok" { LOOK.now_ms - 60_000 } else { 0 },
            shard_bytes: 75_008,
        };
        let segment = SegmentView {
            segment: "ab".repeat(16),
            pg: 77,
            offset: 0,
            bytes: 300_000,
            shards: vec![shard(0, "ok"), shard(4, "damaged")],
        };
        let object = ObjectView {
            bucket: "real".into(),
            key: "x/big".into(),
            version: "null".into(),
            bytes: 300_000,
            etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
            modified_ms: LOOK.now_ms,
            scheme: "4+2".into(),
            inline: false,
            margin: 1,
            segments: vec![segment],
        };
        let expected = "\
s3://real/x/big  version null  292 KiB  etag d41d8cd98f00b204e9800998ecf8427e  written 2026-11-18 11:06:40 UTC
scheme 4+2, can lose 1 more of its shards
segment abababababababababababababababab  pg 77  292 KiB from byte 0
  SLOT  ROLE    BACKEND  STATE       BYTES  VERIFIED
     0  data    d1       ok       73.2 KiB  1 min ago
     4  parity  d5       damaged  73.2 KiB  unknown
";
        assert_eq!(table(&object, LOOK), expected);
        let inline = ObjectView { inline: true, ..object };
        assert!(table(&inline, LOOK).ends_with("its bytes live in the metadata record\n"));
    }
}
