//! `holdfast server`: settings, lock, log, start, serve, stop.
//!
//! Not here: what the roles do. `startup` is the only file that knows how they are put together.

pub(crate) mod credentials;
pub(crate) mod lock;

mod banner;
mod cluster;
mod config;
mod durable_file;
mod faults;
mod first_start;
mod local_backends;
mod logging;
mod member;
mod metrics;
mod operations;
mod running;
mod settings;
mod shutdown;
mod startup;
mod storage_only;
mod tls;

use crate::Outcome;
use crate::arguments::ServerArgs;
use crate::failure::{Exit, Failure};
use config::ServerConfig;
use holdfast_coordinator::admin::Code;
use std::collections::BTreeMap;

/// Runs until a signal asks it to stop.
pub(crate) fn run(arguments: &ServerArgs) -> Outcome {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let (config, warnings) = ServerConfig::load(arguments, &environment)?;
    logging::start(config.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let lock = lock::DataDirectory::open(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("holdfast")
        .build()
        .map_err(|e| Failure::new(Code::StartFailed, format!("start the runtime: {e}")))?;
    let outcome = runtime.block_on(serve(config, &lock));
    // Whatever still runs after the drain's deadline must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(lock);
    outcome
}

async fn serve(config: ServerConfig, lock: &lock::DataDirectory) -> Outcome {
    let drain_timeout = config.drain_timeout;
    let mut running = startup::start(config, lock).await?;
    banner::print(&running.banner);
    let why = tokio::select! {
        why = shutdown::signal() => why?,
        failure = running.broken() => return Err(failure),
    };
    tracing::info!(signal = why, "stopping: finishing requests");
    tokio::select! {
        result = running.stop(drain_timeout) => result.map(|()| Exit::Ok),
        again = shutdown::signal() => {
            let again = again?;
            tracing::warn!(signal = again, "second signal: stopping at once");
            Ok(Exit::Failed)
        }
    }
}
