//! How many more shards a segment can lose, whatever its code.
//!
//! The margin of a segment is the largest t such that the loss of any t of the shards it has left is survived. For MDS
//! codes that is what is left above k. For the others it is counted from the losses they always survive; a pattern
//! beyond those that happens to decode has margin 0, although some further losses might be survived.
//!
//! **Invariant:** a margin is never overstated.

use holdfast_codec::{Codec, Scheme, SlotSet};

/// The margin of a segment with these shards; below 0 if it cannot be decoded.
pub fn margin(scheme: Scheme, present: &SlotSet) -> i32 {
    let above_k = signed(present.len()) - signed(scheme.k());
    if scheme.is_mds() {
        return above_k;
    }
    let lost = scheme.n().saturating_sub(present.len());
    match scheme.losses_survived().checked_sub(lost) {
        Some(left) => signed(left),
        None if above_k >= 0 && Codec::new(scheme).decodable(present) => 0,
        None => above_k.min(-1),
    }
}

/// The margin of a whole segment.
pub fn full_margin(scheme: Scheme) -> i32 {
    signed(scheme.losses_survived())
}

fn signed(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_case() {
        let check = |scheme: &str, lost: &[usize], expected: i32| {
            let scheme: Scheme = scheme.parse().unwrap();
            let present = (0..scheme.n()).filter(|slot| !lost.contains(slot)).collect();
            assert_eq!(margin(scheme, &present), expected, "{scheme} without {lost:?}");
        };
        check("4+2", &[], 2);
        check("4+2", &[0, 5], 0);
        check("4+2", &[0, 1, 2], -1);
        check("4+2", &[0, 1, 2, 3], -2);
        // Any five of twelve; six where each region has two left at most of its three independent ones.
        check("geo-6", &[], 5);
        check("geo-6", &[0, 1, 2, 3, 4], 0);
        check("geo-6", &[0, 2, 4, 6, 7, 8], 0);
        check("geo-6", &[0, 1, 6, 9, 2, 3], -1);
        check("lrc-12-2-2", &[0], 2);
        check("lrc-12-2-2", &[0, 1, 2, 3], -1);
        check("lrc-12-2-2", &[0, 6, 14, 15], 0);
    }

    /// A margin is a promise: any so many further losses decode. All patterns of a small code that is not MDS.
    #[test]
    fn no_margin_is_overstated() {
        let scheme: Scheme = "lrc-4-2-2".parse().unwrap();
        let codec = Codec::new(scheme);
        for pattern in 0u32..1 << scheme.n() {
            let present: SlotSet = (0..scheme.n()).filter(|slot| pattern & (1 << slot) != 0).collect();
            let found = margin(scheme, &present);
            assert_eq!(found >= 0, codec.decodable(&present), "{present:?}");
            for further in (0u32..1 << scheme.n()).filter(|set| i64::from(set.count_ones()) <= i64::from(found)) {
                let left = present.iter().filter(|slot| further & (1 << slot) == 0).collect();
                assert!(codec.decodable(&left), "{present:?} without {further:b}");
            }
        }
    }
}
