//! `holdfast`: the one binary. Starts a server, or asks the administration port of one.
//!
//! Not here: any logic of the store. This crate wires the roles together and gives administration a face.

mod arguments;
mod connection;
mod failure;
mod fault_arguments;
mod output;
mod server;
mod verbs;

use arguments::{Cli, Command};
use clap::Parser;
use failure::{Exit, Failure};
use std::io::Write;
use std::process::ExitCode;

/// One allocator for Rust and, through its unprefixed symbols, for RocksDB: it gives unused memory back to the system
/// (settings in .cargo/config.toml), which is what keeps an idle server small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    let outcome = match cli.command {
        Command::Server(arguments) => server::run(&arguments),
        Command::Admin(command) => verbs::run(*command),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let _ = write!(std::io::stderr(), "{failure}");
            failure.exit.into()
        }
    }
}

/// What every command comes to.
type Outcome = Result<Exit, Failure>;
