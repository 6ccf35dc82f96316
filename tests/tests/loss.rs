//! Promise: any m backends may be lost while the store serves; repair brings full margin back; then any m others may go.

use holdfast_tests::clients::run_client;
use holdfast_tests::content::{assert_same_tree, make_tree};
use holdfast_tests::server::{Server, describe, remove_directory};
use std::time::Duration;

const REPAIR_LIMIT: Duration = Duration::from_secs(120);

fn replace(server: &Server, number: u32) {
    let output =
        server.cli(&["backend", "replace", &format!("d{number}"), &format!("disk:{}", server.disk(number).display())]);
    assert!(output.status.success(), "{}", describe(&output));
}

#[test]
fn two_disks_lost_repaired_and_two_others_lost() {
    let server = Server::start();
    let tree = server.scratch("tree");
    make_tree(&tree, 400, 1);
    let out = server.scratch("out");
    run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/tree"]);

    for number in [2, 5] {
        remove_directory(&server.disk(number));
    }
    let down = |name: &str| {
        let to = out.join(name);
        run_client(&server, "sync_down.sh", &["s3://real/tree", &to.display().to_string()]);
        assert_same_tree(&tree, &to);
    };
    down("two-lost");
    let status = server.cli(&["status"]);
    assert!(
        [Some(3), Some(4)].contains(&status.status.code()),
        "a loss must show in the exit code: {}",
        describe(&status)
    );

    // Writes go on too: four of six backends are fewer than k+1 = 5, so they are refused cleanly, not half done.
    replace(&server, 2);
    replace(&server, 5);
    server.wait_healthy(REPAIR_LIMIT);
    let repair = server.cli_json(&["repair", "status"], &[0]);
    assert_eq!(repair["bytes_to_write"], 0, "{repair}");

    for number in [1, 6] {
        remove_directory(&server.disk(number));
    }
    down("two-others-lost");
}

#[test]
fn a_lost_disk_is_noticed_and_writes_go_on() {
    let server = Server::start();
    remove_directory(&server.disk(3));
    std::thread::sleep(Duration::from_secs(3));
    let list = server.cli_json(&["backend", "list"], &[0, 3, 4]);
    let text = list.to_string();
    assert!(text.contains("missing") || text.contains("wiped"), "{text}");
    let tree = server.scratch("tree");
    make_tree(&tree, 60, 2);
    run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/tree"]);
    replace(&server, 3);
    server.wait_healthy(REPAIR_LIMIT);
    for number in [1, 2] {
        remove_directory(&server.disk(number));
    }
    let out = server.scratch("out");
    run_client(&server, "sync_down.sh", &["s3://real/tree", &out.display().to_string()]);
    assert_same_tree(&tree, &out);
}

#[test]
fn starts_degraded_when_disks_are_gone() {
    let mut server = Server::start();
    let tree = server.scratch("tree");
    make_tree(&tree, 60, 3);
    run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/tree"]);
    assert!(server.terminate().success());
    for number in [1, 4] {
        remove_directory(&server.disk(number));
    }
    // Two of the others change places: recognised by what they hold, not by where they are.
    std::fs::rename(server.disk(2), server.disk(9)).unwrap();
    std::fs::rename(server.disk(3), server.disk(2)).unwrap();
    std::fs::rename(server.disk(9), server.disk(3)).unwrap();
    server.spawn();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while holdfast_tests::server::http_status(server.admin, "/health/live") != Some(200) {
        assert!(std::time::Instant::now() < deadline, "not live:\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    let out = server.scratch("out");
    run_client(&server, "sync_down.sh", &["s3://real/tree", &out.display().to_string()]);
    assert_same_tree(&tree, &out);
}

#[test]
fn corrupt_cells_are_read_around_and_repaired() {
    let server = Server::start();
    let tree = server.scratch("tree");
    make_tree(&tree, 60, 4);
    run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/tree"]);
    // Every second 64 KiB of each extent of one disk is overwritten behind the server's back.
    let mut damaged = 0;
    for entry in std::fs::read_dir(server.disk(4).join("extents")).unwrap() {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        let len = file.metadata().unwrap().len();
        let mut at = 65_536;
        while at + 4_096 < len {
            file.write_all_at(&[0xA5; 4_096], at).unwrap();
            damaged += 1;
            at += 131_072;
        }
    }
    assert!(damaged > 0);
    let out = server.scratch("out");
    run_client(&server, "sync_down.sh", &["s3://real/tree", &out.join("one").display().to_string()]);
    assert_same_tree(&tree, &out.join("one"));
    let scrub = server.cli(&["scrub", "start", "--wait"]);
    assert!([Some(0), Some(3), Some(4)].contains(&scrub.status.code()), "{}", describe(&scrub));
    server.wait_healthy(REPAIR_LIMIT);
    for number in [1, 2] {
        remove_directory(&server.disk(number));
    }
    run_client(&server, "sync_down.sh", &["s3://real/tree", &out.join("two").display().to_string()]);
    assert_same_tree(&tree, &out.join("two"));
}

#[test]
fn drain_moves_everything_before_remove() {
    let server = Server::start();
    let tree = server.scratch("tree");
    make_tree(&tree, 60, 5);
    run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/tree"]);
    let refused = server.cli(&["backend", "drain", "d1"]);
    assert_eq!(refused.status.code(), Some(6), "five backends cannot hold six slots: {}", describe(&refused));
    let place = server.scratch("d7");
    std::fs::remove_dir(&place).unwrap();
    let added = server.cli(&["backend", "add", &format!("disk:{}", place.display())]);
    assert!(added.status.success(), "{}", describe(&added));
    let drained = server.cli(&["backend", "drain", "d1"]);
    assert!(drained.status.success(), "{}", describe(&drained));
    let end = std::time::Instant::now() + REPAIR_LIMIT;
    loop {
        let removed = server.cli(&["backend", "remove", "d1"]);
        if removed.status.success() {
            break;
        }
        assert_eq!(removed.status.code(), Some(6), "{}", describe(&removed));
        assert!(std::time::Instant::now() < end, "not drained:\n{}\n{}", describe(&removed), server.log_tail());
        std::thread::sleep(Duration::from_millis(300));
    }
    remove_directory(&server.disk(1));
    server.wait_healthy(REPAIR_LIMIT);
    for number in [2, 3] {
        remove_directory(&server.disk(number));
    }
    let out = server.scratch("out");
    run_client(&server, "sync_down.sh", &["s3://real/tree", &out.display().to_string()]);
    assert_same_tree(&tree, &out);
}
