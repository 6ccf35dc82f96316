//! `holdfast status` for people: the verdict first, then what is promised, what holds now, and who holds it.

use super::{Look, Tone, backends, repair, words};
use holdfast_proto::admin::{ClusterStatus, Verdict};

/// The whole page.
pub(crate) fn table(status: &ClusterStatus, look: Look) -> String {
    let short: String = status.cluster.chars().take(8).collect();
    let (tone, word, meaning) = headline(status.verdict);
    let mut text = format!(
        "holdfast {short}  {}  ({meaning})    v{}  scheme {}  epoch {}  up {}\n",
        look.paint(tone, word),
        status.version,
        status.scheme,
        status.epoch,
        words::duration(status.uptime_seconds)
    );
    text += &format!("  promise       {}\n", status.promise);
    text += &format!("  survives now  {}\n", status.survives_now);
    text += &format!("  buckets       {}    S3 {}\n", words::count(status.bucket_count), status.s3_endpoint);
    text += &backends::table(&status.backends, look);
    text += &format!("repair  {}\n", repair::repair_line(&status.repair));
    for finding in &status.findings {
        text += &format!("{} {finding}\n", look.paint(tone, "!"));
    }
    text
}

fn headline(verdict: Verdict) -> (Tone, &'static str, &'static str) {
    match verdict {
        Verdict::Healthy => (Tone::Good, "HEALTHY", "every object has full margin"),
        Verdict::Degraded => (Tone::Warning, "DEGRADED", "nothing is lost, some margin or promise is not whole"),
        Verdict::PromiseBroken => (Tone::Bad, "PROMISE BROKEN", "some object would not survive what was promised"),
        Verdict::DataLost => (Tone::Bad, "DATA LOST", "some object has fewer shards than reading needs"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::backends::tests::{LOOK, sample};
    use super::*;
    use holdfast_proto::Epoch;
    use holdfast_proto::node::BackendHealth;

    #[test]
    fn snapshot() {
        let status = ClusterStatus {
            cluster: "0123456789abcdef0123456789abcdef".into(),
            version: "0.1.0".into(),
            verdict: Verdict::Degraded,
            findings: vec!["d2 is missing; `holdfast backend replace d2 disk:PATH`".into()],
            scheme: "4+2".into(),
            promise: "any 2 backends".into(),
            survives_now: "any 1 backend".into(),
            bucket_count: 14,
            epoch: Epoch(3),
            s3_endpoint: "http://127.0.0.1:9000".into(),
            uptime_seconds: 125,
            backends: vec![sample(1, BackendHealth::Online, ""), sample(2, BackendHealth::Missing, "gone")],
            repair: repair::tests::sample(),
        };
        let expected = "\
holdfast 01234567  DEGRADED  (nothing is lost, some margin or promise is not whole)    v0.1.0  scheme 4+2  epoch 3  up 2 min
  promise       any 2 backends
  survives now  any 1 backend
  buckets       14    S3 http://127.0.0.1:9000
BACKEND  STATE    INTENT  FILL  SHARDS    HOLDS     FREE  SCRUBBED  WHERE         NOTE
d1       online   active  25 %  88,310  250 GiB  768 GiB  never     disk:/srv/d1
d2       missing  active     -       -        -        -  -         disk:/srv/d2  gone
repair  repairing: 1,204 shards, 1.0 GiB to write at 410 MiB/s, 9 s to go
! d2 is missing; `holdfast backend replace d2 disk:PATH`
";
        assert_eq!(table(&status, LOOK), expected);
    }
}
