//! Which query parameters a write may carry.
//!
//! The library routes a request by the sub-resources it knows and takes any other for the plain operation: a request
//! for a sub-resource S3 has gained since, such as `DELETE /bucket?metadataConfiguration`, would remove the bucket, and
//! a part without its upload would become an object. So a write with a parameter that does not belong to it is refused.
//! Reads are left alone: one that is routed wrongly changes nothing.

use super::door::DoorError;
use http::{Method, StatusCode};

/// What a write is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Bucket,
    Object,
}

impl Level {
    /// Of a path as the door encoded it.
    pub(super) fn of(path: &str) -> Self {
        let key = path.strip_prefix('/').and_then(|p| p.split_once('/')).map_or("", |(_, key)| key);
        if key.is_empty() { Self::Bucket } else { Self::Object }
    }
}

const BUCKET_PUT: &[&str] = &[
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "encryption",
    "id",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "tagging",
    "versioning",
    "website",
];
const BUCKET_POST: &[&str] = &["delete", "metadataTable"];
const BUCKET_DELETE: &[&str] = &[
    "analytics",
    "cors",
    "encryption",
    "id",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "metadataTable",
    "metrics",
    "ownershipControls",
    "policy",
    "publicAccessBlock",
    "replication",
    "tagging",
    "website",
];
const OBJECT_PUT: &[&str] = &["acl", "legal-hold", "partNumber", "retention", "tagging", "uploadId", "versionId"];
const OBJECT_POST: &[&str] = &["restore", "select", "select-type", "uploadId", "uploads", "versionId"];
const OBJECT_DELETE: &[&str] = &["tagging", "uploadId", "versionId"];
/// What of an object a version of it can be named for in a PUT; an object's bytes are not.
const OF_A_VERSION: [&str; 4] = ["acl", "legal-hold", "retention", "tagging"];

/// Refuses a write whose parameters do not belong to it. `query` is as the door encoded it. Parameters that begin with
/// `x-` are of SDKs and their users, and mean nothing.
pub(super) fn check(method: &Method, level: Level, query: &str) -> Result<(), DoorError> {
    let known = match (method, level) {
        (&Method::PUT, Level::Bucket) => BUCKET_PUT,
        (&Method::POST, Level::Bucket) => BUCKET_POST,
        (&Method::DELETE, Level::Bucket) => BUCKET_DELETE,
        (&Method::PUT, Level::Object) => OBJECT_PUT,
        (&Method::POST, Level::Object) => OBJECT_POST,
        (&Method::DELETE, Level::Object) => OBJECT_DELETE,
        _ => return Ok(()),
    };
    let names: Vec<&str> =
        query.split('&').filter(|p| !p.is_empty()).map(|p| p.split('=').next().unwrap_or_default()).collect();
    let has = |name: &str| names.contains(&name);
    if let Some(name) = names.iter().copied().find(|n| !known.contains(n) && !n.to_ascii_lowercase().starts_with("x-"))
    {
        let message = format!("{method} with the parameter {name} is not implemented");
        return Err(DoorError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message));
    }
    if *method == Method::PUT && has("partNumber") != has("uploadId") {
        return Err(DoorError::bad("InvalidArgument", "partNumber and uploadId go together"));
    }
    if *method == Method::PUT && has("versionId") && !OF_A_VERSION.iter().any(|name| has(name)) {
        return Err(DoorError::bad("InvalidArgument", "This operation does not accept a version-id."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_never_means_something_else() {
        use Level::{Bucket, Object};
        let table = [
            (Method::PUT, Bucket, "", ""),
            (Method::PUT, Bucket, "versioning", ""),
            (Method::PUT, Bucket, "abac", "NotImplemented"),
            (Method::PUT, Bucket, "delete", "NotImplemented"),
            (Method::DELETE, Bucket, "metadataConfiguration", "NotImplemented"),
            (Method::DELETE, Bucket, "versioning", "NotImplemented"),
            (Method::PUT, Object, "partNumber=1&uploadId=a", ""),
            (Method::PUT, Object, "x-id=PutObject&X-Custom=1", ""),
            (Method::PUT, Object, "partNumber=1", "InvalidArgument"),
            (Method::PUT, Object, "uploadId=a", "InvalidArgument"),
            (Method::PUT, Object, "versionId=a", "InvalidArgument"),
            (Method::PUT, Object, "tagging&versionId=a", ""),
            (Method::PUT, Object, "renameObject", "NotImplemented"),
            (Method::PUT, Object, "uploads", "NotImplemented"),
            (Method::DELETE, Object, "versionId=a", ""),
            (Method::DELETE, Object, "acl", "NotImplemented"),
            (Method::POST, Object, "uploads", ""),
            (Method::GET, Object, "anything", ""),
        ];
        for (method, level, query, expected) in table {
            let found = check(&method, level, query).map_or_else(|e| e.code, |()| "");
            assert_eq!(found, expected, "{method} {level:?} {query}");
        }
        assert_eq!(Level::of("/b"), Bucket);
        assert_eq!(Level::of("/b/"), Bucket);
        assert_eq!(Level::of("/b/k"), Object);
        assert_eq!(Level::of("/b//"), Object);
    }
}
