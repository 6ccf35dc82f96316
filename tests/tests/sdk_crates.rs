//! Promise: the Rust crates `aws-sdk-s3` and `object_store` work unchanged, conditional writes included.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use holdfast_tests::clients::aws_client;
use holdfast_tests::content::bytes_of;
use holdfast_tests::server::{ACCESS_KEY, SECRET_KEY, Server};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3CopyIfNotExists};
use object_store::integration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aws_sdk_s3_round_trips() {
    let server = Server::start();
    let client = aws_client(&server.endpoint());
    client.create_bucket().bucket("sdk").send().await.unwrap();

    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        let body = bytes_of(7, 700_001);
        let key = format!("checksum-{algorithm}");
        let put = client.put_object().bucket("sdk").key(&key).checksum_algorithm(algorithm);
        put.body(ByteStream::from(body.clone())).send().await.unwrap();
        let got = client.get_object().bucket("sdk").key(&key).send().await.unwrap();
        assert_eq!(got.body.collect().await.unwrap().into_bytes().as_ref(), body.as_slice());
    }

    let first = client.put_object().bucket("sdk").key("c").body(ByteStream::from_static(b"1"));
    let first = first.if_none_match("*").send().await.unwrap();
    let again = client.put_object().bucket("sdk").key("c").body(ByteStream::from_static(b"2")).if_none_match("*");
    assert!(again.send().await.is_err(), "a second create must fail");
    let etag = first.e_tag().unwrap();
    let swap = client.put_object().bucket("sdk").key("c").body(ByteStream::from_static(b"3")).if_match(etag);
    swap.send().await.unwrap();
    let stale = client.put_object().bucket("sdk").key("c").body(ByteStream::from_static(b"4")).if_match(etag);
    assert!(stale.send().await.is_err(), "a stale ETag must fail");

    let upload = client.create_multipart_upload().bucket("sdk").key("m").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let whole = bytes_of(9, 17_000_000);
    let mut parts = Vec::new();
    for (i, part) in whole.chunks(6_000_000).enumerate() {
        let number = i32::try_from(i + 1).unwrap();
        let sent = client.upload_part().bucket("sdk").key("m").upload_id(id).part_number(number);
        let sent = sent.body(ByteStream::from(part.to_vec())).send().await.unwrap();
        let done = CompletedPart::builder().part_number(number).e_tag(sent.e_tag().unwrap());
        parts.push(done.set_checksum_crc32(sent.checksum_crc32().map(str::to_owned)).build());
    }
    let complete = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    client
        .complete_multipart_upload()
        .bucket("sdk")
        .key("m")
        .upload_id(id)
        .multipart_upload(complete)
        .send()
        .await
        .unwrap();
    let range = client.get_object().bucket("sdk").key("m").range("bytes=5999990-6000009").send().await.unwrap();
    assert_eq!(range.body.collect().await.unwrap().into_bytes().as_ref(), &whole[5_999_990..6_000_010]);
}

/// Sixteen writers create the same key at once: exactly one may win.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creates_exactly_one_wins() {
    let server = Server::start();
    let client = aws_client(&server.endpoint());
    client.create_bucket().bucket("race").send().await.unwrap();
    for round in 0..20_u64 {
        let size = if round % 2 == 0 { 100 } else { 200_000 };
        let writers: Vec<_> = (0..16)
            .map(|i| {
                let body = ByteStream::from(bytes_of(round * 100 + i, size));
                let put = client.put_object().bucket("race").key(format!("k{round}")).if_none_match("*").body(body);
                tokio::spawn(async move { put.send().await.is_ok().then_some(i) })
            })
            .collect();
        let mut winners = Vec::new();
        for writer in writers {
            winners.extend(writer.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?} all believe they created the key");
        let got = client.get_object().bucket("race").key(format!("k{round}")).send().await.unwrap();
        let body = got.body.collect().await.unwrap().into_bytes();
        assert_eq!(body.as_ref(), bytes_of(round * 100 + winners[0], size).as_slice());
    }
}

fn object_store(server: &Server, bucket: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_store_integration() {
    let server = Server::start();
    let client = aws_client(&server.endpoint());
    client.create_bucket().bucket("integration").send().await.unwrap();
    let store = object_store(&server, "integration");
    integration::put_get_delete_list(&store).await;
    integration::get_opts(&store).await;
    integration::put_opts(&store, true).await;
    integration::put_get_attributes(&store).await;
    integration::list_uses_directories_correctly(&store).await;
    integration::list_with_delimiter(&store).await;
    integration::list_with_offset_exclusivity(&store).await;
    integration::rename_and_copy(&store).await;
    integration::copy_if_not_exists(&store).await;
    integration::stream_get(&store).await;
    integration::multipart(&store, &store).await;
    integration::multipart_race_condition(&store, true).await;
    integration::multipart_out_of_order(&store).await;
    integration::copy_rename_nonexistent_object(&store).await;
    integration::get_nonexistent_object(&store, None).await.unwrap_err();
}
