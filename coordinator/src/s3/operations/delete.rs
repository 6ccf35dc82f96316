//! DeleteObject and DeleteObjects.

use super::super::error::from_metadata;
use super::{Operations, conditions, millis, new_version_id, now_ms, selector, versioning_of};
use crate::metadata::{DeleteVersion, Deleted, Preconditions, VersionSelector};
use futures::{StreamExt, stream};
use holdfast_proto::BucketId;
use holdfast_proto::manifest::Bucket;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

/// Keys in one DeleteObjects request.
const KEYS_MAX: usize = 1000;
/// Deletions of one request under way at once: enough to share log syncs.
const CONCURRENT: usize = 64;

impl Operations {
    async fn delete_one(
        &self,
        bucket: &Bucket,
        owner: &str,
        key: String,
        selector: VersionSelector,
        preconditions: Preconditions,
    ) -> S3Result<Deleted> {
        let delete = DeleteVersion {
            bucket: BucketId(bucket.id),
            key,
            selector,
            versioning: versioning_of(bucket),
            marker: new_version_id(),
            now_ms: now_ms(),
            owner: owner.to_owned(),
            preconditions,
        };
        self.metadata.delete_version(delete).await.map_err(from_metadata)
    }

    pub(super) async fn delete(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let owner = self.context(&request)?.principal.access_key.clone();
        let input = request.input;
        let preconditions = Preconditions {
            if_match: conditions::condition(input.if_match.as_ref()),
            if_none_match: None,
            if_match_modified_ms: input.if_match_last_modified_time.as_ref().map(millis),
            if_match_bytes: input.if_match_size.and_then(|s| u64::try_from(s).ok()),
        };
        let selector = selector(input.version_id.as_deref())?;
        let deleted = self.delete_one(&bucket, &owner, input.key, selector, preconditions).await?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.delete_marker.then_some(true),
            version_id: deleted.version,
            ..DeleteObjectOutput::default()
        }))
    }

    pub(super) async fn delete_many(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let owner = self.context(&request)?.principal.access_key.clone();
        let Delete { objects, quiet } = request.input.delete;
        if objects.is_empty() || objects.len() > KEYS_MAX {
            return Err(S3Error::new(S3ErrorCode::MalformedXML));
        }
        let mut outcomes = stream::iter(objects.into_iter().enumerate())
            .map(|(place, object)| {
                let (bucket, owner) = (&bucket, owner.as_str());
                async move { (place, self.delete_listed(bucket, owner, object).await) }
            })
            .buffer_unordered(CONCURRENT)
            .collect::<Vec<_>>()
            .await;
        outcomes.sort_by_key(|(place, _)| *place);
        let quiet = quiet.unwrap_or(false);
        let mut deleted = Vec::new();
        let mut errors = Vec::new();
        for (_, outcome) in outcomes {
            match outcome {
                Ok(done) if !quiet => deleted.push(done),
                Ok(_) => {}
                Err(error) => errors.push(*error),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!deleted.is_empty()).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn delete_listed(
        &self,
        bucket: &Bucket,
        owner: &str,
        object: ObjectIdentifier,
    ) -> Result<DeletedObject, Box<Error>> {
        let preconditions = Preconditions {
            if_match: object.e_tag.as_ref().map(|tag| match tag.value() {
                "*" => crate::metadata::EtagCondition::Any,
                value => crate::metadata::EtagCondition::OneOf(vec![value.to_owned()]),
            }),
            if_none_match: None,
            if_match_modified_ms: object.last_modified_time.as_ref().map(millis),
            if_match_bytes: object.size.and_then(|s| u64::try_from(s).ok()),
        };
        let checked = super::check_key(&object.key).and_then(|()| selector(object.version_id.as_deref()));
        let result = match checked {
            Ok(selector) => self.delete_one(bucket, owner, object.key.clone(), selector, preconditions).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(done) => Ok(DeletedObject {
                delete_marker: done.delete_marker.then_some(true),
                delete_marker_version_id: done.version.filter(|_| done.delete_marker),
                key: Some(object.key),
                version_id: object.version_id,
            }),
            Err(error) => Err(Box::new(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: object.version_id,
            })),
        }
    }
}
