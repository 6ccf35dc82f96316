//! Tags of objects and buckets.

use super::super::error::{invalid_argument, not_configured};
use super::{MetadataResultExt, Operations, read, selector};
use holdfast_proto::BucketId;
use holdfast_proto::manifest::Pair;
use percent_encoding::percent_decode_str;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use std::collections::BTreeSet;

const OBJECT_TAGS_MAX: usize = 10;
const BUCKET_TAGS_MAX: usize = 50;
/// In characters, as S3 counts.
const TAG_KEY_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;

/// `x-amz-tagging`: URL-encoded pairs.
pub(super) fn parse_header(text: &str) -> S3Result<Vec<Pair>> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_decode_str(&spaced)
            .decode_utf8()
            .map(|s| s.into_owned())
            .map_err(|_| invalid_argument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded"))
    };
    let mut tags = Vec::new();
    for part in text.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        tags.push(Pair { name: decode(name)?, value: decode(value)? });
    }
    in_order(tags, OBJECT_TAGS_MAX)
}

/// Tags are a set; they are kept and shown in the order of their names.
fn in_order(mut tags: Vec<Pair>, max: usize) -> S3Result<Vec<Pair>> {
    check(&tags, max)?;
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tags)
}

fn check(tags: &[Pair], max: usize) -> S3Result<()> {
    let invalid = |message: &'static str| Err(S3Error::with_message(S3ErrorCode::InvalidTag, message));
    if tags.len() > max {
        let message = if max == OBJECT_TAGS_MAX {
            "Object tags cannot be greater than 10"
        } else {
            "Bucket tag count cannot be greater than 50"
        };
        return Err(S3Error::with_message(S3ErrorCode::InvalidTag, message));
    }
    let mut names = BTreeSet::new();
    for tag in tags {
        if tag.name.is_empty() || tag.name.chars().count() > TAG_KEY_MAX {
            return invalid("The TagKey you have provided is invalid");
        }
        if tag.value.chars().count() > TAG_VALUE_MAX {
            return invalid("The TagValue you have provided is invalid");
        }
        if !names.insert(&tag.name) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

fn from_set(set: TagSet, max: usize) -> S3Result<Vec<Pair>> {
    let tags: Vec<Pair> =
        set.into_iter().map(|t| Pair { name: t.key.unwrap_or_default(), value: t.value.unwrap_or_default() }).collect();
    in_order(tags, max)
}

fn to_set(tags: &[Pair]) -> TagSet {
    tags.iter().map(|t| Tag { key: Some(t.name.clone()), value: Some(t.value.clone()) }).collect()
}

impl Operations {
    pub(super) async fn get_object_tags(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let version = self.live_version(&bucket, &input.key, input.version_id.as_deref()).await?;
        let tags = version.attributes.as_ref().map(|a| to_set(&a.tags)).unwrap_or_default();
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tags,
            version_id: read::shown_version(&bucket, &version),
        }))
    }

    pub(super) async fn put_object_tags(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let tags = from_set(input.tagging.tag_set, OBJECT_TAGS_MAX)?;
        let selector = selector(input.version_id.as_deref())?;
        let version = self.metadata.set_tags(BucketId(bucket.id), &input.key, selector, tags).await.s3()?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id: Some(version) }))
    }

    pub(super) async fn delete_object_tags(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let input = request.input;
        let selector = selector(input.version_id.as_deref())?;
        let version = self.metadata.set_tags(BucketId(bucket.id), &input.key, selector, Vec::new()).await.s3()?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id: Some(version) }))
    }

    pub(super) async fn get_bucket_tags(
        &self,
        request: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        if bucket.tags.is_empty() {
            return Err(not_configured("NoSuchTagSet", "The TagSet does not exist"));
        }
        Ok(S3Response::new(GetBucketTaggingOutput { tag_set: to_set(&bucket.tags) }))
    }

    pub(super) async fn put_bucket_tags(
        &self,
        request: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        let tags = from_set(request.input.tagging.tag_set, BUCKET_TAGS_MAX)?;
        self.metadata.bucket_set_tags(&bucket.name, tags).await.s3()?;
        Ok(S3Response::new(PutBucketTaggingOutput::default()))
    }

    pub(super) async fn delete_bucket_tags(
        &self,
        request: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        let bucket = self.bucket(&request, &request.input.bucket).await?;
        self.metadata.bucket_set_tags(&bucket.name, Vec::new()).await.s3()?;
        Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tagging_headers() {
        let pairs =
            |text: &str| parse_header(text).map(|t| t.into_iter().map(|p| (p.name, p.value)).collect::<Vec<_>>());
        let two = vec![("a b".to_owned(), "1".to_owned()), ("c".to_owned(), "ü".to_owned())];
        assert_eq!(pairs("a+b=1&c=%C3%BC").unwrap(), two);
        assert_eq!(pairs("c=%C3%BC&a+b=1").unwrap(), two);
        assert_eq!(pairs("").unwrap(), vec![]);
        assert_eq!(pairs("x").unwrap(), vec![("x".to_owned(), String::new())]);
        let many: Vec<String> = (0..11).map(|i| format!("k{i}=v")).collect();
        for bad in ["=v", "a=1&a=2", "%FF=1", &format!("{}=1", "k".repeat(129)), &many.join("&")] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
    }
}
