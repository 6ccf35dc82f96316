//! Maintenance as a whole over fakes: whatever is lost, moved or left over, the store ends whole and tidy.

use super::fakes::{SEGMENT_BYTES, segment_record};
use super::test_world::*;
use super::*;
use holdfast_proto::admin::BackendIntent;
use holdfast_proto::manifest::{ObjectVersion, Segment, StandIn};
use holdfast_proto::node::BackendHealth;
use holdfast_proto::pg_table::Pg;
use holdfast_proto::{Epoch, ErrorKind, PgId, SegmentId, Slot};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_whole_store_is_healthy_at_once_and_stays_untouched() {
    let world = world(6, 200, options(), |_| ()).await;
    let (verdict, findings) = world.maintenance.cluster_verdict().await.unwrap();
    assert_eq!((verdict, findings.as_slice()), (Verdict::Healthy, &[][..]));
    let status = world.maintenance.repair_status().await.unwrap();
    let rows: Vec<_> = status.margins.iter().map(|r| (r.margin, r.segments, r.bytes)).collect();
    assert_eq!(rows, [(-1, 0, 0), (0, 0, 0), (1, 0, 0), (2, 200, 200 * SEGMENT_BYTES)]);
    assert_eq!(world.node.written.lock().len(), 0);
    assert_eq!(world.layout.current().table.epoch, Epoch(1));
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn an_object_deleted_while_the_inventory_is_taken_is_not_called_lost() {
    let world = world(6, 20, options(), |w| {
        let deleted = segment_id(9);
        let (node, metadata, layout) = (w.node.clone(), w.metadata.clone(), w.layout.clone());
        *w.node.on_list.lock() = Some(Box::new(move || {
            let (_, segment) = metadata.segments.lock().remove(&deleted).unwrap();
            let map = layout.current();
            let pg = &map.table.pgs[segment.pg as usize];
            (0..6).map(Slot).zip(&pg.target).for_each(|(slot, id)| node.drop_shard(*id, segment.shard(slot)));
        }));
    })
    .await;
    world
        .until("the first inventory is complete", |w| w.maintenance.shared.repair.lock().doubts_settled.is_some())
        .await;
    let status = world.maintenance.repair_status().await.unwrap();
    let rows: Vec<_> = status.margins.iter().map(|r| (r.margin, r.segments)).collect();
    assert_eq!(rows, [(-1, 0), (0, 0), (1, 0), (2, 19)]);
    assert_eq!(world.until_verdict(Verdict::Healthy).await, Vec::<String>::new());
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn two_wiped_backends_are_replaced_in_place_and_made_whole_most_endangered_first() {
    // One segment has lost another shard on top: it must come first.
    let endangered = segment_id(77);
    let world = world(6, 120, options(), |w| {
        for name in ["d2", "d5"] {
            w.node.set_health(w.backend(name), BackendHealth::Wiped);
        }
    })
    .await;
    let findings = world.until_verdict(Verdict::PromiseBroken).await;
    assert!(
        findings.iter().any(|f| f.contains("d2") && f.contains("holdfast backend replace d2 disk:/d2")),
        "{findings:?}"
    );
    world.maintenance.repair_pause().await.unwrap();
    for name in ["d2", "d5"] {
        let add = BackendAdd { location: format!("disk:/{name}"), name: None, node: None };
        let view = world.maintenance.backend_replace(name, add).await.unwrap();
        assert_eq!((view.status.name.as_str(), view.pg_slots), (name, PG_COUNT));
    }
    assert_eq!(world.layout.current().backends.len(), 6, "the old ones are forgotten at once");
    // With d2 and d5 empty every segment has margin 0; give all but one a shard back.
    for shard in
        world.shards().into_iter().filter(|s| s.segment != endangered && world.place(*s) == world.backend("d2"))
    {
        world.node.put(world.backend("d2"), shard);
    }
    world.maintenance.repair_start().await.unwrap();
    world.until_whole_and_tidy().await;
    let first = world.node.written.lock()[..2].to_vec();
    assert!(first.iter().any(|s| s.segment == endangered), "{first:?}");
    for name in ["d1", "d3"] {
        world.node.set_health(world.backend(name), BackendHealth::Missing);
    }
    assert!(world.until_verdict(Verdict::PromiseBroken).await.len() >= 2);
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn a_missing_backend_is_waited_for_then_a_spare_takes_over() {
    let world = world(7, 100, options(), |_| ()).await;
    world.until_verdict(Verdict::Healthy).await;
    let gone = world.backend("d3");
    let epoch = world.layout.current().table.epoch;
    world.node.set_health(gone, BackendHealth::Missing);
    let findings = world.until_verdict(Verdict::Degraded).await;
    assert!(findings.iter().any(|f| f.contains("d3") && f.contains("missing") && f.contains("15 min")), "{findings:?}");
    assert_eq!(world.layout.current().table.epoch, epoch, "nothing moves within the grace");
    world.maintenance.repair_start().await.unwrap();
    world.until("d3 has no slots", |w| !w.layout.current().table.pgs.iter().any(|pg| pg.target.contains(&gone))).await;
    world.until_verdict(Verdict::Healthy).await;
    // It comes back with what it had: it takes its share again, and nothing is left over.
    world.node.set_health(gone, BackendHealth::Online);
    world.until("d3 has slots", |w| w.layout.current().table.pgs.iter().any(|pg| pg.target.contains(&gone))).await;
    world.until_whole_and_tidy().await;
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn drain_is_refused_without_room_and_moves_everything_with_it() {
    let world = world(6, 100, options(), |_| ()).await;
    let refused = world.maintenance.backend_drain("d1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("5 backends"), "{refused}");
    assert!(refused.next_step().contains("backend add"));
    let unknown = world.maintenance.backend_drain("d9").await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.next_step().contains("d6")), (ErrorKind::NotFound, true));

    let added = world
        .maintenance
        .backend_add(BackendAdd { location: "disk:/d7".into(), name: None, node: None })
        .await
        .unwrap();
    assert_eq!(added.status.name, "d7");
    world.until_whole_and_tidy().await;
    assert!(world.node.count(world.backend("d7")) > 0, "the new backend takes its share");

    let d1 = world.backend("d1");
    let in_use = world.maintenance.backend_remove("d1").await.unwrap_err();
    assert!(in_use.next_step().contains("backend drain d1"), "{}", in_use.next_step());
    world.maintenance.backend_drain("d1").await.unwrap();
    let rebuilt = world.rebuilder.rebuilt.load(Ordering::Relaxed);
    world
        .until("d1 is drained", |w| {
            w.layout.current().backends.iter().any(|b| b.id == d1 && b.intent == BackendIntent::Drained)
        })
        .await;
    assert_eq!(world.node.count(d1), 0);
    assert_eq!(world.rebuilder.rebuilt.load(Ordering::Relaxed), rebuilt, "a drain copies, it does not decode");
    world.maintenance.backend_remove("d1").await.unwrap();
    world.until_whole_and_tidy().await;
    assert_eq!(world.maintenance.backend_list().await.unwrap().len(), 6);
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn moves_are_committed_only_after_the_last_write_by_an_older_layout() {
    let world = world(6, 40, options(), |_| ()).await;
    world.until_verdict(Verdict::Healthy).await;
    *world.rebuilder.oldest_epoch.lock() = Some(Epoch(1));
    let old = world.backend("d4");
    world
        .maintenance
        .backend_replace("d4", BackendAdd { location: "disk:/new".into(), name: None, node: None })
        .await
        .unwrap();
    world.until("every shard is copied", |w| w.shards().iter().all(|s| w.node.holds_good(w.place(*s), *s))).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let map = world.layout.current();
    assert!(map.table.pgs.iter().all(Pg::is_moving), "committed under a write by epoch 1");
    // That write ends on the old backend, after everything else has moved.
    let id = segment_id(900);
    let segment = world.write(id);
    let late = segment.shard(Slot(0));
    for slot in (0..6).map(Slot).filter(|slot| world.place(segment.shard(*slot)) == world.backend("d4")) {
        world.node.drop_shard(world.backend("d4"), segment.shard(slot));
        world.node.put(old, segment.shard(slot));
    }
    *world.rebuilder.oldest_epoch.lock() = None;
    world.until("the old one is forgotten", |w| !w.layout.current().backends.iter().any(|b| b.id == old)).await;
    assert!(world.node.holds_good(world.place(late), late));
    world.until_whole_and_tidy().await;
    assert_eq!(world.rebuilder.rebuilt.load(Ordering::Relaxed), 0, "late shards are copied, not decoded");
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn a_live_backend_is_replaced_elsewhere_by_copying_and_then_forgotten() {
    let world = world(6, 60, options(), |_| ()).await;
    let old = world.backend("d4");
    let same = world
        .maintenance
        .backend_replace("d4", BackendAdd { location: "disk:/d4".into(), name: None, node: None })
        .await;
    assert_eq!(same.unwrap_err().kind(), ErrorKind::Conflict);
    let add = BackendAdd { location: "disk:/new".into(), name: None, node: None };
    let view = world.maintenance.backend_replace("d4", add).await.unwrap();
    assert_eq!(view.status.name, "d4");
    assert_ne!(view.status.id, old);
    world.until("the old one is forgotten", |w| !w.layout.current().backends.iter().any(|b| b.id == old)).await;
    world.until_whole_and_tidy().await;
    assert_eq!(world.rebuilder.rebuilt.load(Ordering::Relaxed), 0);
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn hints_and_scrub_get_damage_repaired_in_place() {
    let world = world(6, 40, options(), |_| ()).await;
    world.until_verdict(Verdict::Healthy).await;
    let shards = world.shards();
    // Rotten, reported by a read.
    let rotten = shards[7];
    world.node.rot(world.place(rotten), rotten);
    world.hints.send(DamageHint { shard: rotten, backend: world.place(rotten) }).await.unwrap();
    world.until("the reported shard is good", |w| w.node.holds_good(w.place(rotten), rotten)).await;
    // Reported, but sound: not written again.
    let written = world.node.written.lock().len();
    world.hints.send(DamageHint { shard: shards[8], backend: world.place(shards[8]) }).await.unwrap();
    world.until_verdict(Verdict::Healthy).await;
    assert_eq!(world.node.written.lock().len(), written);
    // Rotten, found by scrub.
    for shard in [shards[20], shards[101]] {
        world.node.rot(world.place(shard), shard);
    }
    world.maintenance.scrub_start().await.unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        let status = world.maintenance.scrub_status().await.unwrap();
        if status.state == "idle" {
            break status;
        }
        assert!(Instant::now() < end, "{status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((status.shards, status.damaged), (240, 2));
    assert!(status.finished_ms > 0);
    world.until_whole_and_tidy().await;
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn a_write_that_was_acknowledged_degraded_is_completed_and_recorded() {
    let world = world(6, 30, options(), |_| ()).await;
    world.until_verdict(Verdict::Healthy).await;
    let id = young_segment_id();
    world.rebuilder.in_flight.lock().insert(id);
    let segment = world.write(id);
    let shard = segment.shard(Slot(3));
    world.node.drop_shard(world.place(shard), shard);
    world.metadata.segments.lock().get_mut(&id).unwrap().1.durable_slots = 0b11_0111;
    world.hints.send(DamageHint { shard, backend: world.place(shard) }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.maintenance.shared.request_inventory(shared::Doubt::None);
    world.until_verdict(Verdict::Degraded).await;
    assert!(!world.node.holds_good(world.place(shard), shard), "left alone while it is being written");
    world.rebuilder.in_flight.lock().remove(&id);
    world.until("it is recorded", |w| w.metadata.segments.lock()[&id].1.durable_slots == 0b11_1111).await;
    world.until_whole_and_tidy().await;
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn what_others_took_in_goes_home_when_its_backend_is_back() {
    let world = world(8, 30, options(), |_| {}).await;
    let away = world.backend("d1");
    world.node.set_health(away, BackendHealth::Missing);
    world.until_verdict(Verdict::Degraded).await;
    for number in 100..140 {
        let id = segment_id(number);
        let mut segment = world.write(id);
        let pg = world.layout.current().table.pg(PgId(segment.pg)).unwrap().target.clone();
        let Some(slot) = pg.iter().position(|backend| *backend == away) else { continue };
        let slot = Slot(u8::try_from(slot).unwrap());
        let map = world.layout.current();
        let stand_in = map.backends.iter().map(|record| record.id).find(|id| !pg.contains(id)).unwrap();
        world.node.drop_shard(away, segment.shard(slot));
        world.node.put(stand_in, segment.shard(slot));
        segment.stand_ins.push(StandIn::new(slot, stand_in));
        world.metadata.segments.lock().get_mut(&id).unwrap().1 = segment.clone();
        world.hints.send(DamageHint { shard: segment.shard(slot), backend: away }).await.unwrap();
    }
    world.maintenance.shared.request_inventory(shared::Doubt::FewerShards);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let findings = world.until_verdict(Verdict::Degraded).await;
    assert!(findings.iter().any(|finding| finding.contains("wait for a place")), "{findings:?}");
    assert_eq!(world.rebuilder.rebuilt.load(Ordering::Relaxed), 0, "nothing is rebuilt meanwhile");
    world.node.set_health(away, BackendHealth::Online);
    world.until_whole_and_tidy().await;
    assert_eq!(world.rebuilder.rebuilt.load(Ordering::Relaxed), 0, "copied, not rebuilt");
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn garbage_and_orphans_are_freed_and_what_is_being_written_is_not() {
    let in_flight = segment_id(500);
    let young = SegmentId::from_parts(u64::MAX >> 17, [0; 10]);
    let world = world(6, 50, options(), |w| {
        let put_all = |segment: &Segment| {
            for slot in (0..6).map(Slot) {
                w.node.put(w.place(segment.shard(slot)), segment.shard(slot));
            }
        };
        put_all(&segment_record(segment_id(501), 5));
        put_all(&segment_record(in_flight, 4));
        put_all(&segment_record(young, 0));
        w.rebuilder.in_flight.lock().insert(in_flight);
        let mut segments = w.metadata.segments.lock();
        for number in 0..20 {
            let (_, segment) = segments.remove(&segment_id(number)).unwrap();
            w.metadata.garbage.lock().insert(number, segment);
        }
    })
    .await;
    world.until("garbage is gone", |w| w.metadata.garbage.lock().is_empty()).await;
    let total = |w: &World| (1..=6).map(|n| w.node.count(w.backend(&format!("d{n}")))).sum::<usize>();
    world.until("only owned, young and unfinished shards are left", |w| total(w) == (30 + 2) * 6).await;
    // The upload dies: its shards are orphans now, and freed when every coordinator says so, not an inventory period later.
    world.rebuilder.is_silent.store(true, Ordering::Relaxed);
    world.rebuilder.in_flight.lock().clear();
    world.maintenance.repair_start().await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(total(&world), 32 * 6);
    world.rebuilder.is_silent.store(false, Ordering::Relaxed);
    world.until("the dead upload is swept", |w| total(w) == 31 * 6).await;
    assert_eq!(world.until_verdict(Verdict::Healthy).await, Vec::<String>::new());
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn too_few_shards_are_said_and_repaired_once_a_backend_returns() {
    let world = world(6, 30, options(), |w| {
        for name in ["d1", "d2", "d3"] {
            w.node.set_health(w.backend(name), BackendHealth::Missing);
        }
    })
    .await;
    let findings = world.until_verdict(Verdict::DataLost).await;
    assert!(findings.iter().any(|f| f.contains("fewer shards than they need")), "{findings:?}");
    assert_eq!(
        world.maintenance.status_report().await.unwrap().survives_now,
        "nothing: some objects cannot be read now"
    );
    for name in ["d1", "d2", "d3"] {
        world.node.set_health(world.backend(name), BackendHealth::Online);
    }
    world.until_whole_and_tidy().await;
    world.maintenance.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_backend_whose_listing_failed_goes_on_when_it_is_trusted_again() {
    let world = world(6, 40, options(), |w| {
        let backend = w.backend("d1");
        w.node.unlisted.lock().insert(backend);
        let lost = w.shards().into_iter().find(|shard| w.place(*shard) == backend).unwrap();
        w.node.drop_shard(backend, lost);
    })
    .await;
    let findings = world.until_verdict(Verdict::Degraded).await;
    assert!(
        findings.iter().any(|f| f.contains("wait") && f.contains("d1, whose shards could not be listed")),
        "{findings:?}"
    );
    // Its health never changed, and the next inventory by the clock is minutes away.
    let begun = tokio::time::Instant::now();
    world.until_whole_and_tidy().await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn inspect_tells_where_each_shard_is_and_how() {
    let world = world(6, 10, options(), |_| ()).await;
    let segment = world.metadata.segments.lock()[&segment_id(3)].1.clone();
    let version =
        ObjectVersion { object_bytes: SEGMENT_BYTES, segments: vec![segment.clone()], ..ObjectVersion::default() };
    world.metadata.versions.lock().insert("k".into(), version);
    world.maintenance.repair_pause().await.unwrap();
    world.node.drop_shard(world.place(segment.shard(Slot(1))), segment.shard(Slot(1)));
    let away = world.place(segment.shard(Slot(5)));
    world.node.set_health(away, BackendHealth::Missing);
    world.until_verdict(Verdict::PromiseBroken).await;
    let view = world.maintenance.object_inspect("b", "k", None).await.unwrap();
    let states: Vec<_> = view.segments[0].shards.iter().map(|s| (s.role.as_str(), s.state.as_str())).collect();
    assert_eq!(
        states,
        [
            ("data", "ok"),
            ("data", "missing"),
            ("data", "ok"),
            ("data", "ok"),
            ("parity", "ok"),
            ("parity", "unavailable")
        ]
    );
    assert_eq!((view.margin, view.scheme.as_str(), view.segments[0].shards[5].backend), (0, "4+2", away));
    for (bucket, key, version) in [("x", "k", None), ("b", "x", None), ("b", "k", Some("zz"))] {
        assert_eq!(
            world.maintenance.object_inspect(bucket, key, version).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn pause_holds_repair_and_shutdown_ends_it_at_once() {
    let world = world(6, 200, options(), |_| ()).await;
    world.until_verdict(Verdict::Healthy).await;
    world.maintenance.repair_pause().await.unwrap();
    world.node.set_health(world.backend("d6"), BackendHealth::Wiped);
    world
        .maintenance
        .backend_replace("d6", BackendAdd { location: "disk:/d6".into(), name: None, node: None })
        .await
        .unwrap();
    let findings = world.until_verdict(Verdict::Degraded).await;
    world.until("work is known", |w| w.maintenance.shared.repair_status().shards_to_write > 0).await;
    assert_eq!(world.maintenance.repair_status().await.unwrap().state, "paused", "{findings:?}");
    assert_eq!(world.node.written.lock().len(), 0);
    *world.node.write_delay.lock() = Duration::from_secs(30);
    world.maintenance.repair_resume().await.unwrap();
    world.until("repair is under way", |w| w.maintenance.shared.repair_status().state == "repairing").await;
    let begun = Instant::now();
    world.maintenance.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_large_store_is_repaired_through_small_windows_and_a_small_queue() {
    let small =
        MaintenanceOptions { inventory_window: 1000, repair_queue_max: 500, repair_concurrency: 8, ..options() };
    let world = world(6, 5_000, small, |w| {
        for shard in w.shards().into_iter().filter(|s| w.place(*s) == w.backend("d1")) {
            w.node.drop_shard(w.backend("d1"), shard);
        }
    })
    .await;
    world.until_whole_and_tidy().await;
    assert_eq!(world.node.count(world.backend("d1")), 5_000);
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn garbage_that_is_being_read_waits_for_its_readers() {
    let world = world(6, 10, options(), |w| {
        let mut segments = w.metadata.segments.lock();
        for number in 0..4 {
            let (_, segment) = segments.remove(&segment_id(number)).unwrap();
            w.metadata.garbage.lock().insert(number, segment);
        }
        *w.rebuilder.being_read.lock() = HashSet::from([segment_id(1), segment_id(3)]);
    })
    .await;
    world.until("what nobody reads is freed", |w| w.metadata.garbage.lock().len() == 2).await;
    let total = |w: &World| (1..=6).map(|n| w.node.count(w.backend(&format!("d{n}")))).sum::<usize>();
    for _ in 0..5 {
        // Neither as garbage nor as an orphan.
        world.maintenance.repair_start().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(total(&world), 8 * 6);
    }
    world.rebuilder.being_read.lock().clear();
    world.until("the rest is freed", |w| w.metadata.garbage.lock().is_empty() && total(w) == 6 * 6).await;
    world.maintenance.shutdown().await;
}

#[tokio::test]
async fn repair_gets_on_while_inventories_are_asked_for_without_end() {
    let world = world(6, 40, options(), |w| {
        let lost = w.backend("d2");
        for shard in w.shards().into_iter().filter(|shard| w.place(*shard) == lost) {
            w.node.drop_shard(lost, shard);
        }
    })
    .await;
    let repair = world.maintenance.shared.clone();
    let flapping = tokio::spawn(async move {
        loop {
            repair.request_inventory(shared::Doubt::FewerShards);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    world.until("every shard is in its place", |w| w.shards().iter().all(|s| w.node.holds_good(w.place(*s), *s))).await;
    flapping.abort();
    world.until_whole_and_tidy().await;
    world.maintenance.shutdown().await;
}
