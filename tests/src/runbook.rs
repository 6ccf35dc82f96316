//! A page of `docs/operate`, executed: a test runs the commands of the page, in its order, and fails when it has run others
//! or left one out.
//!
//! **Invariant:** what a test runs through a runbook is a line of the page with only its placeholders replaced.

use crate::server::{Server, describe};
use std::path::Path;

/// Indent of a command: that of a code block in a list, or of one outside.
const INDENTS: [&str; 2] = ["        ", "    "];

/// A page whose commands are to be run.
pub struct Runbook {
    name: String,
    commands: Vec<String>,
    next: usize,
}

impl Runbook {
    /// Reads `docs/operate/NAME.md`.
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/operate/{name}.md"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let command = |line: &str| {
            let command = INDENTS.iter().find_map(|indent| line.strip_prefix(indent))?.strip_prefix("holdfast ")?;
            Some(command.to_owned())
        };
        let commands: Vec<String> = text.lines().filter_map(command).collect();
        assert!(!commands.is_empty(), "{name} has no command");
        Self { name: name.to_owned(), commands, next: 0 }
    }

    /// The next command of the page, which must be `holdfast EXPECTED`, as arguments with `values` in the place of the
    /// placeholders.
    pub fn next(&mut self, expected: &str, values: &[(&str, &str)]) -> Vec<String> {
        let command = self.commands.get(self.next).unwrap_or_else(|| panic!("{} ends before: {expected}", self.name));
        assert_eq!(command, expected, "{}: command {}", self.name, self.next + 1);
        self.next += 1;
        let replace = |word: &str| {
            values.iter().fold(word.to_owned(), |word, (placeholder, value)| word.replace(placeholder, value))
        };
        command.split(' ').map(replace).collect()
    }

    /// Runs the next command against `server`; it must end with one of `codes`. Returns what it printed.
    pub fn run(&mut self, server: &Server, expected: &str, values: &[(&str, &str)], codes: &[i32]) -> String {
        let arguments = self.next(expected, values);
        let output = server.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let code = output.status.code().unwrap_or(-1);
        assert!(codes.contains(&code), "{}: holdfast {expected}\n{}", self.name, describe(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Goes back to the first command: the page is done once for each node.
    pub fn again(&mut self) {
        self.assert_done();
        self.next = 0;
    }

    /// Every command of the page was run.
    pub fn assert_done(&self) {
        assert_eq!(self.next, self.commands.len(), "{}: not run: {:?}", self.name, &self.commands[self.next..]);
    }
}
