//! `holdfast-bench`: a load generator for any S3 server, and a comparison of several in one interleaved run.
//!
//! It measures from outside, over HTTP, what a client would see; it knows nothing of the servers it measures.

mod arguments;
mod body;
mod cleanup;
mod compare;
mod connection;
mod load;
mod machine;
mod pages;
mod report;
mod s3;
mod schedule;

use arguments::{Cli, Command};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::S3(arguments) => run_s3(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Pages(arguments) => pages::run(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// One run; `false` if any operation failed or any byte was wrong.
fn run_s3(arguments: &arguments::S3Args) -> anyhow::Result<bool> {
    let target = arguments.server.target()?;
    let report = load::run(&target, &arguments.plan()?)?;
    let text = if arguments.json { report.to_json()? } else { report.to_text() };
    say(&text);
    Ok(report.is_clean())
}

/// To standard output; a reader that went away is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// To standard error.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
