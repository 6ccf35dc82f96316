//! Tools of the system (`ip`, `tc`, `iptables-restore`, `mount`) run with a limit, what earlier runs left behind, and
//! whether this process may use namespaces at all.
//!
//! The rule for the last: not root is a reason to skip, said on standard error past any capture; root without a tool or
//! without namespaces is a failure, and so is anything but success when `CI_REQUIRE_NAMESPACES` is set, as CI does.

use crate::server::wait_limited;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

/// Begins the name of every namespace of this harness; then the id of the process and a number.
pub const NAMESPACE_PREFIX: &str = "hf-";
/// Begins the name of every directory of this harness; then the id of the process.
pub const DIRECTORY_PREFIX: &str = "holdfast-cluster-";
/// Where `ip netns` keeps its names.
pub const NAMESPACES: &str = "/run/netns";
/// Longest a tool may take. They take milliseconds; `mkfs` a second.
const TOOL_LIMIT: Duration = Duration::from_secs(30);

/// Runs a tool; its output, or the whole command with what it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    run_with_input(program, arguments, "")
}

/// The same with something on its standard input.
pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let failed = |what: String| format!("{program} {}: {what}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    // Inputs and outputs here are a few lines: they fit into a pipe, so neither side waits for the other.
    child.stdin.take().expect("it was piped").write_all(input.as_bytes()).map_err(|e| failed(e.to_string()))?;
    if wait_limited(&mut child, TOOL_LIMIT).is_none() {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("did not end within {TOOL_LIMIT:?}")));
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }
}

/// Runs a tool that must succeed.
pub fn must_run(program: &str, arguments: &[&str]) -> String {
    run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether namespaces can be had; if not, says why, or panics where they must be (see above).
pub fn namespaces_are_permitted() -> bool {
    static LEFTOVERS: Once = Once::new();
    if rustix::process::geteuid().is_root() {
        LEFTOVERS.call_once(|| {
            for tool in ["ip", "tc", "iptables-restore", "mkfs.ext4"] {
                let found = run("sh", &["-c", &format!("command -v {tool}")]);
                assert!(found.is_ok(), "{tool} is missing, which hosts on one machine need: run `scripts/setup hosts`");
            }
            remove_leftovers();
        });
        return true;
    }
    let reason = "network namespaces need root";
    assert!(std::env::var_os("CI_REQUIRE_NAMESPACES").is_none(), "{reason}, and CI_REQUIRE_NAMESPACES is set");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, which the test runner keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}; run the tests as root to have it run");
    false
}

/// Removes what test processes that are no more left behind: their servers, namespaces, mounts and directories.
fn remove_leftovers() {
    for name in names_in(Path::new(NAMESPACES)) {
        if is_left_over(&name, NAMESPACE_PREFIX) {
            remove_namespace(&name);
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let directory = std::env::temp_dir();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let inside = Path::new(point).strip_prefix(&directory).ok().and_then(|rest| rest.iter().next());
        if inside.is_some_and(|name| is_left_over(&name.to_string_lossy(), DIRECTORY_PREFIX)) {
            let _ = run("umount", &["-l", point]);
        }
    }
    for name in names_in(&directory) {
        if is_left_over(&name, DIRECTORY_PREFIX) {
            let _ = fs::remove_dir_all(directory.join(&name));
        }
    }
}

/// Kills what runs in a namespace and removes it, with its cables. Errors mean that somebody else was quicker.
pub fn remove_namespace(name: &str) {
    for pid in run("ip", &["netns", "pids", name]).unwrap_or_default().split_whitespace() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| *pid != rustix::process::getpid()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    let _ = run("ip", &["netns", "delete", name]);
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether a name is one of ours and the process whose id it carries is no more.
fn is_left_over(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_left_over() {
        let own = std::process::id();
        // No process has the greatest number there is: the kernel's limit is 2^22.
        for (name, expected) in [
            (format!("hf-{own}-0-1"), false),
            ("hf-4294967295-0-1".to_owned(), true),
            ("hf-".to_owned(), false),
            ("hf-x-0".to_owned(), false),
            ("other-4294967295-0".to_owned(), false),
        ] {
            assert_eq!(is_left_over(&name, NAMESPACE_PREFIX), expected, "{name}");
        }
    }

    #[test]
    fn a_tool_that_fails_says_what_was_run_and_why() {
        let error = run("sh", &["-c", "echo broken >&2; exit 3"]).unwrap_err();
        assert!(error.contains("sh -c") && error.contains("broken") && error.contains('3'), "{error}");
        assert!(run("no-such-tool", &[]).unwrap_err().contains("no-such-tool"));
        assert_eq!(run_with_input("cat", &[], "in").unwrap(), "in");
    }
}
