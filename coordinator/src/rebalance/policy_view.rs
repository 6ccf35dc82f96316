//! Schemes that keep a promise, as people choose among them.

use holdfast_codec::Scheme;
use holdfast_placement::SchemeOffer;
use holdfast_proto::layout_admin::SchemeView;

/// A scheme as `K+M`, or by the name of its code.
pub fn scheme_name(scheme: Scheme) -> String {
    if scheme.is_mds() { format!("{}+{}", scheme.k(), scheme.m()) } else { scheme.to_string() }
}

/// The first offers, and the scheme in use if it is among the others.
pub fn scheme_views(offers: &[SchemeOffer], present: Scheme, most: usize) -> Vec<SchemeView> {
    let is_shown = |(at, offer): &(usize, &SchemeOffer)| *at < most || offer.scheme == present;
    let shown = offers.iter().enumerate().filter(is_shown);
    let view = |offer: &SchemeOffer| SchemeView {
        scheme: scheme_name(offer.scheme),
        is_present: offer.scheme == present,
        overhead: offer.overhead,
        survives: count(offer.survives),
        nines: offer.nines,
        nines_with_region_loss: offer.nines_with_region_loss,
        repair_reads: offer.repair_reads,
        has_spare_node: offer.has_spare_node,
    };
    shown.map(|(_, offer)| view(offer)).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::model::map_of;
    use super::*;
    use crate::repair::topology;
    use holdfast_placement::{Hazards, PlannerLimits, plan_policy};

    #[test]
    fn the_best_come_first_and_the_present_one_is_always_there() {
        let map = map_of(3, 4, "4+4");
        let topology = topology(&map, &[]).unwrap();
        let plan = plan_policy(&topology, &"zone:1".parse().unwrap(), &PlannerLimits::default(), &Hazards::default());
        let present: Scheme = "4+4".parse().unwrap();
        let shown = scheme_views(&plan.offers, present, 2);
        let names: Vec<&str> = shown.iter().map(|view| view.scheme.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[0], scheme_name(plan.offers[0].scheme));
        assert!(shown[2].is_present && names[2] == "4+4" && (shown[2].overhead - 2.0).abs() < 1e-9);
        let all = scheme_views(&plan.offers, present, usize::MAX);
        assert_eq!(all.iter().filter(|view| view.is_present).count(), 1);
    }
}
