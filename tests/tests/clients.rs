//! Promise: the S3 clients people use work unchanged.

use holdfast_tests::clients::run_client;
use holdfast_tests::server::Server;

fn check(script: &str) {
    let server = Server::start();
    run_client(&server, script, &[]);
}

#[test]
fn aws_cli() {
    check("aws_cli.sh");
}

#[test]
fn boto3_semantics() {
    let server = Server::start();
    let endpoint = server.endpoint();
    run_client(
        &server,
        "test_s3_semantics.py",
        &[&endpoint, holdfast_tests::server::ACCESS_KEY, holdfast_tests::server::SECRET_KEY],
    );
}

#[test]
fn rclone() {
    check("rclone.sh");
}

#[test]
fn restic() {
    check("restic.sh");
}

#[test]
fn s3cmd() {
    check("s3cmd.sh");
}

#[test]
fn s5cmd() {
    check("s5cmd.sh");
}

#[test]
fn minio_py() {
    check("minio_client.py");
}

#[test]
fn pyarrow() {
    check("pyarrow_client.py");
}

#[test]
fn curl_presigned_and_raw() {
    check("curl.sh");
}
