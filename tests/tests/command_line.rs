//! Promise: the commands, flags, messages and exit codes that scripts and people rely on.

use holdfast_tests::server::{ACCESS_KEY, Server, describe, free_address, holdfast_binary};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn a_healthy_store_says_so_and_lists_what_it_has() {
    let server = Server::start();
    let status = server.cli_json(&["status"], &[0]);
    assert_eq!(status["verdict"], "healthy", "{status}");
    assert_eq!(status["scheme"], "4+2");
    assert_eq!(status["backends"].as_array().map(Vec::len), Some(6));
    let created = server.cli(&["bucket", "create", "from-cli"]);
    assert!(created.status.success(), "{}", describe(&created));
    assert!(server.cli_json(&["bucket", "list"], &[0]).to_string().contains("from-cli"));
    let key = server.cli_json(&["key", "create", "--name", "ci"], &[0]);
    assert!(key["secret_key"].as_str().is_some_and(|s| s.len() >= 20), "{key}");
    let access_key = key["access_key"].as_str().unwrap();
    let listed = server.cli_json(&["key", "list"], &[0]).to_string();
    assert!(listed.contains(access_key) && listed.contains(ACCESS_KEY), "{listed}");
    assert!(!listed.contains(key["secret_key"].as_str().unwrap()), "a listing never shows a secret");
    assert!(server.cli(&["key", "delete", access_key]).status.success());
    assert!(server.cli(&["bucket", "delete", "from-cli"]).status.success());
    for word in ["HEALTHY", "d1", "d6"] {
        let text = describe(&server.cli(&["status"]));
        assert!(text.to_uppercase().contains(&word.to_uppercase()), "{word} not in {text}");
    }
}

#[test]
fn a_stopped_server_keeps_everything_and_a_second_one_is_refused() {
    let mut server = Server::start();
    assert!(server.cli(&["bucket", "create", "kept"]).status.success());
    let second = Command::new(holdfast_binary())
        .args(["server", "--data-dir"])
        .arg(server.data())
        .args(["--s3-listen", &free_address().to_string(), "--admin-listen", &free_address().to_string()])
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = describe(&second);
    assert!(text.contains("in use") || text.contains("another"), "a clear refusal: {text}");
    let end = server.terminate();
    assert!(end.success(), "SIGTERM must end with 0: {end}\n{}", server.log_tail());
    server.restart();
    assert!(server.cli_json(&["bucket", "list"], &[0]).to_string().contains("kept"));
}

#[test]
fn credentials_are_generated_once_and_kept_private() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (s3, admin) = (free_address(), free_address());
    let mut child = Command::new(holdfast_binary())
        .args(["server", "--data-dir"])
        .arg(&data)
        .args(["--s3-listen", &s3.to_string(), "--admin-listen", &admin.to_string()])
        .env_remove("HOLDFAST_ACCESS_KEY_ID")
        .env_remove("HOLDFAST_SECRET_ACCESS_KEY")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while holdfast_tests::server::http_status(admin, "/health/ready") != Some(200) && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mode = std::fs::metadata(data.join("credentials")).map(|m| m.permissions().mode() & 0o777);
    let status = Command::new(holdfast_binary())
        .args(["status", "--admin", &format!("http://{admin}"), "--data-dir"])
        .arg(&data)
        .env_remove("HOLDFAST_ACCESS_KEY_ID")
        .env_remove("HOLDFAST_SECRET_ACCESS_KEY")
        .output()
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(mode.unwrap(), 0o600);
    assert!(status.status.success(), "{}", describe(&status));
}

#[test]
fn mistakes_get_one_clear_line_with_the_nearest_name() {
    let run = |args: &[&str]| Command::new(holdfast_binary()).args(args).output().unwrap();
    let flag = run(&["server", "--data-dri", "x"]);
    assert_eq!(flag.status.code(), Some(2));
    assert!(describe(&flag).contains("--data-dir"), "{}", describe(&flag));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("holdfast.toml");
    std::fs::write(&config, "s3_lisen = \"127.0.0.1:1\"\n").unwrap();
    let data = directory.path().join("data");
    let key = run(&["server", "--data-dir", &data.display().to_string(), "--config", &config.display().to_string()]);
    assert_eq!(key.status.code(), Some(2), "{}", describe(&key));
    assert!(describe(&key).contains("s3_listen"), "{}", describe(&key));
    let scheme = run(&["server", "--data-dir", &data.display().to_string(), "--scheme", "9+9"]);
    assert!(!scheme.status.success(), "18 backends are not there");
    let unreachable = Command::new(holdfast_binary())
        .args(["status", "--admin", &format!("http://{}", free_address())])
        .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
        .env("HOLDFAST_SECRET_ACCESS_KEY", "whatever-it-is")
        .output()
        .unwrap();
    assert_eq!(unreachable.status.code(), Some(7), "{}", describe(&unreachable));
}

#[test]
fn wrong_keys_are_denied_and_health_and_metrics_are_open() {
    let server = Server::start();
    let denied = Command::new(holdfast_binary())
        .args(["status", "--admin", &format!("http://{}", server.admin)])
        .env("HOLDFAST_ACCESS_KEY_ID", ACCESS_KEY)
        .env("HOLDFAST_SECRET_ACCESS_KEY", "not-the-secret")
        .output()
        .unwrap();
    assert_eq!(denied.status.code(), Some(8), "{}", describe(&denied));
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(holdfast_tests::server::http_status(server.admin, path), Some(200), "{path}");
    }
}

#[test]
fn object_inspect_names_every_shard() {
    let server = Server::start();
    let tree = server.scratch("tree");
    std::fs::write(tree.join("big"), holdfast_tests::content::bytes_of(1, 300_000)).unwrap();
    holdfast_tests::clients::run_client(&server, "sync_up.sh", &[&tree.display().to_string(), "s3://real/x"]);
    let view = server.cli_json(&["object", "inspect", "s3://real/x/big"], &[0]);
    let shards = view["segments"][0]["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 6, "{view}");
    assert!(shards.iter().all(|s| s["state"] == "ok"), "{view}");
}
