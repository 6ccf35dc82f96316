//! The log on standard error, and the panic hook that puts a panic there, too.

use super::config::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Which lines are logged: `HOLDFAST_LOG`, in the syntax of tracing's EnvFilter.
const VARIABLE: &str = "HOLDFAST_LOG";
/// openraft reports every tick at info, and at warn that a group of one voter hears its own superseded vote; what is
/// wrong it says at error.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// Begins logging. A filter that cannot be read is replaced by the default, with a warning.
pub(crate) fn start(format: LogFormat) {
    let asked = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty());
    let parsed = asked.as_deref().map(EnvFilter::try_new);
    let (filter, unreadable) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = format == LogFormat::Auto && std::io::stderr().is_terminal() && !refused;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // An error means that a subscriber is there already, which only a test can bring about.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Auto | LogFormat::Text => builder.try_init(),
    };
    if let Some(error) = unreadable {
        tracing::warn!(%error, "{VARIABLE} cannot be read; logging as usual");
    }
    log_panics();
}

/// A panic ends one task, not the server; it must be seen where people look.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "panic: {text}");
    }));
}
