//! Endpoints that create, list and delete buckets. What is owned by the root key here is the same bucket S3 shows.

use super::{AdminFailure, AdminResult, Code, Shared, Who, finish};
use axum::Json;
use axum::extract::{Extension, Path, State};
use holdfast_proto::ErrorKind;
use holdfast_proto::admin::BucketView;
use holdfast_proto::manifest::{Bucket, Versioning};
use std::ops::RangeInclusive;

/// Lengths S3 allows ("Bucket naming rules" in the S3 user guide).
const NAME_BYTES: RangeInclusive<usize> = 3..=63;

pub(crate) async fn list(State(state): Shared) -> AdminResult<Json<Vec<BucketView>>> {
    let buckets = state.metadata.bucket_list().await?;
    Ok(Json(buckets.iter().filter(|b| !b.deleting).map(view).collect()))
}

pub(crate) async fn create(
    State(state): Shared,
    Extension(who): Who,
    Path(name): Path<String>,
) -> AdminResult<Json<BucketView>> {
    check_name(&name)?;
    tracing::info!(bucket = name, "bucket create");
    let now_ms = (state.clock)();
    let made = finish(async move { Ok(state.metadata.bucket_create(&name, &who.access_key, now_ms).await?) }).await?;
    Ok(Json(view(&made)))
}

pub(crate) async fn remove(State(state): Shared, Path(name): Path<String>) -> AdminResult<Json<BucketView>> {
    let bucket = state.metadata.bucket(&name).ok_or_else(|| {
        AdminFailure::new(Code::NoSuchBucket, ErrorKind::NotFound, format!("no bucket {name:?}"))
            .or_try("holdfast bucket list")
    })?;
    tracing::info!(bucket = name, "bucket delete");
    finish(async move {
        state.metadata.bucket_delete(&name).await.map_err(|error| {
            let failure = AdminFailure::from(error);
            match failure.code {
                Code::BucketNotEmpty => failure.or_try("delete its objects, versions and uploads first"),
                _ => failure,
            }
        })
    })
    .await?;
    Ok(Json(view(&bucket)))
}

fn view(bucket: &Bucket) -> BucketView {
    let versioning = match bucket.versioning() {
        Versioning::Unversioned => "unversioned",
        Versioning::Enabled => "enabled",
        Versioning::Suspended => "suspended",
    };
    BucketView {
        name: bucket.name.clone(),
        created_ms: bucket.created_ms,
        versioning: versioning.to_owned(),
        owner: bucket.owner.clone(),
    }
}

fn check_name(name: &str) -> AdminResult<()> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = name.bytes().next().is_some_and(alphanumeric) && name.bytes().last().is_some_and(alphanumeric);
    let valid = NAME_BYTES.contains(&name.len())
        && ends_well
        && name.bytes().all(|b| alphanumeric(b) || b == b'-' || b == b'.')
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if valid {
        return Ok(());
    }
    let message = format!("{name:?} is not a bucket name");
    Err(AdminFailure::new(Code::InvalidBucketName, ErrorKind::Invalid, message)
        .or_try("3 to 63 lower-case letters, digits, '-' and '.', a letter or digit at both ends"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        for good in ["abc", "a-b.c", "0ab", &"x".repeat(63)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "Abc", "-ab", "ab-", "a..b", "a_b", "a/b", "10.0.0.1", "é-bucket", &"x".repeat(64)] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::InvalidBucketName, "{bad}");
        }
    }
}
