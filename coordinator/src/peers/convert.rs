//! Messages between coordinators to and from what they mean. What cannot be read is refused, never guessed.

use crate::object_path::{Activity, DamageHint};
use holdfast_proto::peer_rpc::{ActivityReply, DamageHint as HintMessage, SegmentWrite};
use holdfast_proto::{BackendId, Epoch, SegmentId, ShardId};
use prost::bytes::Bytes;

/// As a message; `epoch` is the newest map known before the activity was looked at.
pub(super) fn activity_message(epoch: Epoch, activity: &Activity) -> ActivityReply {
    let writing = activity.writing.iter();
    ActivityReply {
        epoch: epoch.0,
        writing: writing
            .map(|(segment, epoch)| SegmentWrite { segment: Bytes::copy_from_slice(&segment.0), epoch: epoch.0 })
            .collect(),
        reading: activity.reading.iter().flat_map(|segment| segment.0).collect::<Vec<u8>>().into(),
    }
}

/// `None` if an id is not one.
pub(super) fn activity_of(message: &ActivityReply) -> Option<Activity> {
    if !message.reading.len().is_multiple_of(16) {
        return None;
    }
    let writing = message.writing.iter();
    Some(Activity {
        writing: writing
            .map(|write| Some((SegmentId::from_slice(&write.segment)?, Epoch(write.epoch))))
            .collect::<Option<_>>()?,
        reading: message.reading.chunks_exact(16).map(SegmentId::from_slice).collect::<Option<_>>()?,
    })
}

/// As a message.
pub(super) fn hint_message(hint: &DamageHint) -> HintMessage {
    HintMessage {
        shard: Bytes::copy_from_slice(&hint.shard.encode()),
        backend: Bytes::copy_from_slice(&hint.backend.0),
    }
}

/// `None` if an id is not one.
pub(super) fn hint_of(message: &HintMessage) -> Option<DamageHint> {
    Some(DamageHint { shard: ShardId::decode(&message.shard)?, backend: BackendId::from_slice(&message.backend)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::{PgId, Slot};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn messages_lead_back_and_broken_ids_are_refused() {
        let (a, b) = (SegmentId([1; 16]), SegmentId([2; 16]));
        let activity =
            Activity { writing: BTreeMap::from([(a, Epoch(3)), (b, Epoch(9))]), reading: BTreeSet::from([a, b]) };
        let mut message = activity_message(Epoch(9), &activity);
        assert_eq!(activity_of(&message), Some(activity));
        message.reading = Bytes::from_static(&[1; 17]);
        assert_eq!(activity_of(&message), None);
        let short = SegmentWrite { segment: Bytes::from_static(&[1; 15]), epoch: 1 };
        assert_eq!(activity_of(&ActivityReply { writing: vec![short], ..ActivityReply::default() }), None);

        let hint =
            DamageHint { shard: ShardId { pg: PgId(7), segment: a, slot: Slot(3) }, backend: BackendId([4; 16]) };
        let mut message = hint_message(&hint);
        assert_eq!(hint_of(&message), Some(hint));
        message.shard = Bytes::new();
        assert_eq!(hint_of(&message), None);
    }
}
