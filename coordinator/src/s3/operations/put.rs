//! PutObject, and how bodies pass between `s3s` and the object path.

use super::super::error::from_object;
use super::attributes::{given, refuse_offset, refuse_unsupported};
use super::{Operations, check_key, checksums, conditions, encryption};
use crate::object_path::{BodyError, BodyStream, DurabilityReceipt, ObjectError, PutRequest, ReadStream};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use s3s::dto::{ChecksumType, ETag, PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::{S3Request, S3Response, S3Result};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Says what a write reached.
const DURABILITY: HeaderName = HeaderName::from_static("x-holdfast-durability");

impl Operations {
    pub(super) async fn put(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let context = self.context(&request)?.clone();
        let input = &mut request.input;
        check_key(&input.key)?;
        encryption::refuse(&request.headers)?;
        refuse_unsupported!(input);
        refuse_offset(input.write_offset_bytes)?;
        let fields = checksums::Fields {
            crc32: input.checksum_crc32.take(),
            crc32c: input.checksum_crc32c.take(),
            crc64nvme: input.checksum_crc64nvme.take(),
            sha1: input.checksum_sha1.take(),
            sha256: input.checksum_sha256.take(),
        };
        let algorithm = input.checksum_algorithm.as_ref().map(|a| a.as_str().to_owned());
        let expect = checksums::expectation(&context, input.content_md5.as_deref(), algorithm.as_deref(), fields)?;
        let put = PutRequest {
            bucket,
            attributes: given!(input).into_attributes()?,
            key: std::mem::take(&mut input.key),
            owner: context.principal.access_key.clone(),
            object_bytes: context.body_bytes,
            object_bytes_max: context.body_bytes_max,
            expect,
            preconditions: conditions::preconditions(input.if_match.as_ref(), input.if_none_match.as_ref()),
        };
        let outcome = self.objects.put(put, body(input.body.take())).await.map_err(from_object)?;
        let version = outcome.version;
        let sums = checksums::Fields::of(&version.checksums);
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(version.etag.clone())),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: checksums::type_of(&version.checksums).map(ChecksumType::from_static),
            version_id: (!version.is_null).then(|| version.s3_version_id()),
            ..PutObjectOutput::default()
        };
        Ok(with_receipt(S3Response::new(output), &outcome.receipt))
    }
}

/// Adds the durability receipt to a reply.
pub(super) fn with_receipt<T>(mut response: S3Response<T>, receipt: &DurabilityReceipt) -> S3Response<T> {
    if let Ok(value) = HeaderValue::from_str(&receipt.to_string()) {
        response.headers.insert(DURABILITY, value);
    }
    response
}

/// The body as the object path takes it; none at all is an empty one.
pub(super) fn body(blob: Option<StreamingBlob>) -> BodyStream {
    match blob {
        None => stream::empty().boxed(),
        Some(blob) => blob
            .map(|item| {
                item.map_err(|error| match error.downcast::<BodyError>() {
                    Ok(error) => *error,
                    Err(other) => BodyError::Incomplete { reason: other.to_string() },
                })
            })
            .boxed(),
    }
}

/// Object bytes as `s3s` takes them, once the first of them are there: a read that cannot begin is an error reply, never
/// a reply that breaks off. Bytes that are there whole leave in one piece with the head.
pub(super) async fn blob(mut stream: ReadStream, length: u64) -> S3Result<StreamingBlob> {
    let first = match stream.next().await {
        None => return Ok(StreamingBlob::from(s3s::Body::empty())),
        Some(first) => first.map_err(from_object)?,
    };
    if first.len() as u64 == length {
        return Ok(StreamingBlob::from(s3s::Body::from(first)));
    }
    let whole = stream::once(async { Ok(first) }).chain(stream).boxed();
    Ok(StreamingBlob::wrap(SyncStream(Mutex::new(whole))))
}

/// `s3s` asks for `Sync`; a stream that is only polled through `&mut` is that behind a mutex that is never locked.
struct SyncStream(Mutex<ReadStream>);

impl Stream for SyncStream {
    type Item = Result<Bytes, ObjectError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.get_mut().as_mut().poll_next(context)
    }
}

/// Bytes read from one object as the body of another. A failure to read the source is not the client's.
pub(super) fn piped(stream: ReadStream) -> BodyStream {
    stream.map(|item| item.map_err(|e| BodyError::Incomplete { reason: format!("read the source: {e}") })).boxed()
}
