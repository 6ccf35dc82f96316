//! What commands print: tables for people, JSON for scripts. Colour is never the only signal, and only on a terminal.
//!
//! Pure but for `print` and `Look::detect`: a table is a function of an answer, the time and the look.

pub(crate) mod backends;
pub(crate) mod faults;
pub(crate) mod keys_and_buckets;
pub(crate) mod layout;
pub(crate) mod moves;
pub(crate) mod nodes;
pub(crate) mod object;
pub(crate) mod policy;
pub(crate) mod repair;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod words;

use crate::arguments::OutputFormat;
use crate::failure::Failure;
use comfy_table::{CellAlignment, Table, presets};
use holdfast_coordinator::admin::Code;
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// How text may look and which time is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Whether escapes for colour may be written.
    pub(crate) colour: bool,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Look {
    /// Of this process's standard output, now. https://no-color.org: any non-empty NO_COLOR switches colour off.
    pub(crate) fn detect() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self {
            colour: std::io::stdout().is_terminal() && !refused,
            now_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The word in green, yellow or red.
    pub(crate) fn paint(self, tone: Tone, word: &str) -> String {
        if !self.colour {
            return word.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31;1",
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Needs a look.
    Warning,
    /// Needs a hand.
    Bad,
}

/// Prints `answer` as asked for. A reader that went away (`| head`) is no failure.
pub(crate) fn print<T: Serialize>(
    format: OutputFormat,
    answer: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        OutputFormat::Table => table(answer),
        OutputFormat::Json => serde_json::to_string_pretty(answer)
            .map(|text| text + "\n")
            .map_err(|e| Failure::new(Code::Internal, format!("encode the answer: {e}")))?,
    };
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// A line on standard error, for people who wait.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Columns under headings, two blanks apart, no trailing blanks. `right` lists the columns that hold numbers.
pub(crate) fn columns(headings: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
