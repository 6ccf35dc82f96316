//! The signals that ask a server to stop.

use crate::failure::Failure;
use holdfast_coordinator::admin::Code;
use tokio::signal::unix::{SignalKind, signal as listen};

/// Returns once SIGTERM or SIGINT came, with its name.
pub(crate) async fn signal() -> Result<&'static str, Failure> {
    let failed = |e: std::io::Error| Failure::new(Code::StartFailed, format!("listen for signals: {e}"));
    let mut terminate = listen(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = listen(SignalKind::interrupt()).map_err(failed)?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
