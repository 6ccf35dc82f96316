//! Real S3 clients: shell scripts and Python programs of `tests/clients`, run against a test server.

use crate::server::{ACCESS_KEY, SECRET_KEY, Server, describe};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The AWS SDK for Rust, pointed at `endpoint`, path style, few retries so that a test sees failures.
pub fn aws_client(endpoint: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .force_path_style(true)
        .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// Where `make setup-clients` put the Python clients: `HOLDFAST_CLIENTS`, else beside the build.
fn venv() -> PathBuf {
    let root = std::env::var_os("HOLDFAST_CLIENTS").map(PathBuf::from).unwrap_or_else(|| {
        let mut path = std::env::current_exe().expect("a test knows its own executable");
        for _ in 0..3 {
            path.pop();
        }
        path.join("clients")
    });
    let venv = root.join("venv");
    assert!(venv.join("bin").exists(), "the S3 clients are not installed: run `make setup-clients`");
    venv
}

/// Runs `tests/clients/SCRIPT` with the server's endpoint and keys in the usual variables, `$WORK` an empty directory
/// and `$BUCKET` a name for it to use; panics with its output unless it ends with 0 within five minutes.
pub fn run_client(server: &Server, script: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let venv = venv();
    let search = format!("{}:{}", venv.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let interpreter = if script.ends_with(".py") { venv.join("bin/python") } else { PathBuf::from("bash") };
    let bucket = format!("client-{}", script.split('.').next().unwrap_or("x").replace('_', "-"));
    let output = Command::new("timeout")
        .arg("300")
        .arg(interpreter)
        .arg(&path)
        .args(arguments)
        .env("PATH", search)
        .env("WORK", server.scratch("work"))
        .env("BUCKET", bucket)
        .env("ENDPOINT", server.endpoint())
        .env("HOST_PORT", server.s3.to_string())
        .env("HOLDFAST_PID", server.pid().to_string())
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", server.endpoint())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .env_remove("AWS_CA_BUNDLE")
        .env_remove("AWS_PROFILE")
        .stdin(Stdio::null())
        .output()
        .expect("run the client");
    assert!(
        output.status.success(),
        "{script} failed\n{}\n--- server log ---\n{}",
        describe(&output),
        server.log_tail()
    );
}
