//! Buckets: create, head, list, delete, location, versioning, and the configurations that are not there.

use super::super::error::{invalid_argument, invalid_request, not_implemented};
use super::acl::{check_canned, check_grants, check_ownership};
use super::names::is_valid_bucket;
use super::{MetadataResultExt, Operations, now_ms, timestamp, versioning_of};
use crate::metadata::MetadataError;
use holdfast_proto::manifest::Versioning;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

/// Buckets of one page of a listing that asks for pages.
const BUCKETS_MAX: i32 = 10_000;

impl Operations {
    pub(super) async fn create(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let owner = self.context(&request)?.principal.access_key.clone();
        let input = request.input;
        if !is_valid_bucket(&input.bucket) {
            return Err(S3Error::with_message(S3ErrorCode::InvalidBucketName, "The specified bucket is not valid."));
        }
        if input.object_lock_enabled_for_bucket == Some(true) {
            return Err(not_implemented("Object lock"));
        }
        check_canned(input.acl.as_ref().map(BucketCannedACL::as_str))?;
        check_grants([
            input.grant_full_control.as_ref(),
            input.grant_read.as_ref(),
            input.grant_read_acp.as_ref(),
            input.grant_write.as_ref(),
            input.grant_write_acp.as_ref(),
        ])?;
        if let Some(ownership) = &input.object_ownership {
            check_ownership(ownership.as_str())?;
        }
        let constraint = input.create_bucket_configuration.and_then(|c| c.location_constraint);
        if let Some(constraint) = constraint.filter(|c| !c.as_str().is_empty())
            && constraint.as_str() != self.options.region
        {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidLocationConstraint,
                "The specified location-constraint is not valid",
            ));
        }
        let location = Some(format!("/{}", input.bucket));
        match self.metadata.bucket_create(&input.bucket, &owner, now_ms()).await {
            Ok(_) => Ok(S3Response::new(CreateBucketOutput { location })),
            Err(MetadataError::BucketExists { owner: other, .. }) if other == owner => {
                // As S3 answers in us-east-1 for a bucket one already owns; elsewhere it is a conflict.
                if self.options.region == "us-east-1" {
                    return Ok(S3Response::new(CreateBucketOutput { location }));
                }
                Err(S3Error::with_message(
                    S3ErrorCode::BucketAlreadyOwnedByYou,
                    "Your previous request to create the named bucket succeeded and you already own it.",
                ))
            }
            Err(error) => Err(super::from_metadata(error)),
        }
    }

    pub(super) async fn head_one(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&request, &request.input.bucket).await?;
        let bucket_region = Some(self.options.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    pub(super) async fn list_all(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let principal = self.context(&request)?.principal.clone();
        let input = request.input;
        let limit = input.max_buckets.unwrap_or(BUCKETS_MAX);
        if !(1..=BUCKETS_MAX).contains(&limit) {
            return Err(invalid_argument(format!("max-buckets must be between 1 and {BUCKETS_MAX}")));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().unwrap_or_default();
        let mut names: Vec<_> = self.metadata.bucket_list().await.s3()?;
        names.retain(|b| b.owner == principal.access_key && b.name.starts_with(&prefix) && b.name > after);
        let more = names.len() > limit;
        names.truncate(limit);
        let continuation_token = names.last().filter(|_| more).map(|b| b.name.clone());
        let buckets = names
            .into_iter()
            .map(|b| Bucket { creation_date: Some(timestamp(b.created_ms)), name: Some(b.name), ..Bucket::default() })
            .collect();
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            continuation_token,
            owner: Some(self.owner(&principal.access_key)),
            prefix: input.prefix,
        }))
    }

    pub(super) async fn delete_bucket_named(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        self.metadata.bucket_delete(&bucket.name).await.s3()?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    pub(super) async fn location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.bucket(&request, &request.input.bucket).await?;
        // us-east-1 is the empty constraint.
        let region = self.options.region.clone();
        let location_constraint = (region != "us-east-1").then(|| BucketLocationConstraint::from(region));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    pub(super) async fn versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let status = match versioning_of(&bucket) {
            Versioning::Unversioned => None,
            Versioning::Enabled => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
            Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
        };
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() }))
    }

    pub(super) async fn set_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let configuration = request.input.versioning_configuration;
        if configuration.mfa_delete.as_ref().is_some_and(|m| m.as_str() == "Enabled") || request.input.mfa.is_some() {
            return Err(not_implemented("MFA delete"));
        }
        let versioning = match configuration.status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            Some(_) => return Err(S3Error::new(S3ErrorCode::MalformedXML)),
            None => return Err(invalid_request("The versioning configuration has no status")),
        };
        self.metadata.bucket_set_versioning(&bucket.name, versioning).await.s3()?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }
}
