//! Pages of one long listing, one by one: is a page at the end as quick as one at the start?
//!
//! Not here: throughput of whole listings (`load`).

use crate::arguments::PagesArgs;
use crate::body::Bodies;
use crate::load::{self, Operation, Plan};
use crate::s3::Target;
use crate::say;
use anyhow::Context;
use std::time::{Duration, Instant};

/// Pages at either end that count as "the start" and "the end".
const PAGES_AT_AN_END: usize = 20;

/// Puts the objects there, lists them in pages of 1000, and prints the median page at the start, at the end and the
/// slowest; `false` if keys were missing or out of order.
pub(crate) fn run(arguments: &PagesArgs) -> anyhow::Result<bool> {
    let target = arguments.server.target()?;
    let mut plan = Plan::new(Operation::List, arguments.size, arguments.concurrency);
    plan.objects = arguments.objects;
    plan.seed = arguments.seed;
    load::prepare_bucket(&target)?;
    let filled = Instant::now();
    let preloaded = load::preload(&target, &plan, &Bodies::new(plan.seed), plan.objects)?;
    let fill = filled.elapsed();
    let pages = load::runtime()?.block_on(list(&target, preloaded.prefix()))?;
    let keys: u64 = pages.iter().map(|page| page.keys).sum();
    let sorted = pages.windows(2).all(|pair| pair[0].last < pair[1].first);
    let at = |some: &[Page]| median_ms(some.iter().map(|page| page.took).collect());
    let end = pages.len().saturating_sub(PAGES_AT_AN_END + 1);
    // The last page is a short one, or empty.
    let (first, last) = (&pages[..pages.len().min(PAGES_AT_AN_END)], &pages[end..pages.len().saturating_sub(1)]);
    let slowest = pages.iter().map(|page| page.took).max().unwrap_or_default();
    say(&format!(
        "listing objects={keys} pages={} filled_in={:.0}s start_page_ms={:.2} end_page_ms={:.2} max_page_ms={:.2} \
         in_order={sorted}\n",
        pages.len(),
        fill.as_secs_f64(),
        at(first),
        at(last),
        slowest.as_secs_f64() * 1000.0,
    ));
    Ok(keys == plan.objects && sorted)
}

/// One page as it came.
struct Page {
    took: Duration,
    keys: u64,
    first: String,
    last: String,
}

async fn list(target: &Target, prefix: &str) -> anyhow::Result<Vec<Page>> {
    let mut connection = target.connect();
    let mut pages = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let began = Instant::now();
        let (keys, next) = target.page_keys(&mut connection, prefix, token.as_deref()).await.context("list a page")?;
        let took = began.elapsed();
        let (first, last) = (keys.first().cloned().unwrap_or_default(), keys.last().cloned().unwrap_or_default());
        pages.push(Page { took, keys: keys.len() as u64, first, last });
        match next {
            Some(next) => token = Some(next),
            None => return Ok(pages),
        }
    }
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
