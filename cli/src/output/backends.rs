//! The table of backends.

use super::{Look, Tone, columns, words};
use holdfast_proto::admin::{BackendIntent, BackendView};
use holdfast_proto::node::BackendHealth;
use holdfast_sdk::byte_size;

/// One line each.
pub(crate) fn table(backends: &[BackendView], look: Look) -> String {
    let rows = backends.iter().map(|backend| row(backend, look)).collect();
    let headings = ["BACKEND", "STATE", "INTENT", "FILL", "SHARDS", "HOLDS", "FREE", "SCRUBBED", "WHERE", "NOTE"];
    columns(&headings, rows, &[3, 4, 5, 6])
}

fn row(view: &BackendView, look: Look) -> Vec<String> {
    let backend = &view.status;
    let known = backend.health.can_read();
    let figure = |text: String| if known { text } else { "-".to_owned() };
    vec![
        backend.name.clone(),
        look.paint(tone(backend.health), health(backend.health)),
        intent(view.intent).to_owned(),
        figure(words::percent(backend.capacity_bytes.saturating_sub(backend.free_bytes), backend.capacity_bytes)),
        figure(words::count(backend.shard_count)),
        figure(byte_size::format(backend.used_bytes)),
        figure(byte_size::format(backend.free_bytes)),
        figure(words::ago(backend.scrubbed_ms, look.now_ms)),
        backend.location.clone(),
        backend.reason.clone(),
    ]
}

/// A backend in one sentence, after a change to it.
pub(crate) fn sentence(view: &BackendView) -> String {
    let backend = &view.status;
    format!("{} ({}) is {}, {}\n", backend.name, backend.location, health(backend.health), intent(view.intent))
}

/// As JSON spells it.
pub(crate) fn health(health: BackendHealth) -> &'static str {
    match health {
        BackendHealth::Online => "online",
        BackendHealth::ReadOnly => "read-only",
        BackendHealth::Missing => "missing",
        BackendHealth::Wiped => "wiped",
        BackendHealth::Foreign => "foreign",
        BackendHealth::Failed => "failed",
    }
}

fn tone(health: BackendHealth) -> Tone {
    match health {
        BackendHealth::Online => Tone::Good,
        BackendHealth::ReadOnly => Tone::Warning,
        _ => Tone::Bad,
    }
}

fn intent(intent: BackendIntent) -> &'static str {
    match intent {
        BackendIntent::Active => "active",
        BackendIntent::Draining => "draining",
        BackendIntent::Drained => "drained",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use holdfast_proto::BackendId;
    use holdfast_proto::node::BackendStatus;

    pub(crate) const LOOK: Look = Look { colour: false, now_ms: 1_795_000_000_000 };

    pub(crate) fn sample(number: u8, health: BackendHealth, reason: &str) -> BackendView {
        let status = BackendStatus {
            id: BackendId([number; 16]),
            name: format!("d{number}"),
            location: format!("disk:/srv/d{number}"),
            health,
            reason: reason.to_owned(),
            capacity_bytes: 1 << 40,
            free_bytes: 3 << 38,
            used_bytes: 250 << 30,
            shard_count: 88_310,
            scrubbed_ms: if number == 1 { 0 } else { LOOK.now_ms - 3_600_000 },
        };
        BackendView { status, intent: BackendIntent::Active, pg_slots: 256 }
    }

    #[test]
    fn snapshot() {
        let backends = [
            sample(1, BackendHealth::Online, ""),
            sample(2, BackendHealth::Missing, "no such directory"),
            BackendView { intent: BackendIntent::Draining, ..sample(3, BackendHealth::ReadOnly, "fsync failed 14:31") },
        ];
        let expected = "\
BACKEND  STATE      INTENT    FILL  SHARDS    HOLDS     FREE  SCRUBBED       WHERE         NOTE
d1       online     active    25 %  88,310  250 GiB  768 GiB  never          disk:/srv/d1
d2       missing    active       -       -        -        -  -              disk:/srv/d2  no such directory
d3       read-only  draining  25 %  88,310  250 GiB  768 GiB  1 h 0 min ago  disk:/srv/d3  fsync failed 14:31
";
        assert_eq!(table(&backends, LOOK), expected);
        assert_eq!(sentence(&backends[2]), "d3 (disk:/srv/d3) is read-only, draining\n");
    }

    #[test]
    fn colour_only_where_it_may_be() {
        let one = [sample(2, BackendHealth::Missing, "gone")];
        assert!(!table(&one, LOOK).contains('\u{1b}'));
        assert!(table(&one, Look { colour: true, ..LOOK }).contains("\u{1b}[31;1mmissing\u{1b}[0m"));
    }
}
