//! Attributes of an object between S3's headers and our record.

use super::super::error::{invalid_argument, not_implemented};
use holdfast_proto::manifest::{Attributes, ObjectVersion, Pair};
use s3s::S3Result;
use s3s::dto::{Timestamp, TimestampFormat};

/// All user metadata of an object together (S3 user guide: 2 KB).
const USER_METADATA_BYTES_MAX: usize = 2048;
/// Storage classes that mean what we do: keep it, readable at once.
const STORAGE_CLASSES: [&str; 6] =
    ["STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

/// Headers of a write, as every operation that makes an object has them.
pub(super) struct Given {
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) expires: Option<Timestamp>,
    pub(super) website_redirect_location: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) metadata: Option<s3s::dto::Metadata>,
    pub(super) tagging: Option<String>,
}

/// Builds `Given` from any input that has these fields.
macro_rules! given {
    ($input:expr) => {
        $crate::s3::operations::attributes::Given {
            content_type: $input.content_type.take().map(|t| t.to_string()),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            expires: $input.expires.take(),
            website_redirect_location: $input.website_redirect_location.take(),
            storage_class: $input.storage_class.take().map(|c| c.as_str().to_owned()),
            metadata: $input.metadata.take(),
            tagging: $input.tagging.take(),
        }
    };
}
pub(super) use given;

/// Refuses what would otherwise be silently ignored: object lock, grants, and canned lists that say more than what holds.
macro_rules! refuse_unsupported {
    ($input:expr) => {{
        use $crate::s3::error::not_implemented;
        if $input.object_lock_mode.is_some()
            || $input.object_lock_retain_until_date.is_some()
            || $input.object_lock_legal_hold_status.is_some()
        {
            return Err(not_implemented("Object lock"));
        }
        $crate::s3::operations::acl::check_canned($input.acl.as_ref().map(|acl| acl.as_str()))?;
        $crate::s3::operations::acl::check_grants([
            $input.grant_full_control.as_ref(),
            $input.grant_read.as_ref(),
            $input.grant_read_acp.as_ref(),
            $input.grant_write_acp.as_ref(),
            None,
        ])?;
    }};
}
pub(super) use refuse_unsupported;

impl Given {
    /// The record; refuses too much metadata and storage classes that promise something else.
    pub(super) fn into_attributes(self) -> S3Result<Attributes> {
        let mut headers = Vec::new();
        let mut keep = |name: &str, value: Option<String>| {
            headers.extend(value.filter(|v| !v.is_empty()).map(|value| Pair { name: name.to_owned(), value }));
        };
        keep("cache-control", self.cache_control);
        keep("content-disposition", self.content_disposition);
        keep("content-encoding", self.content_encoding);
        keep("content-language", self.content_language);
        keep("expires", self.expires.as_ref().and_then(http_date));
        keep("x-amz-website-redirect-location", self.website_redirect_location);
        if let Some(class) = self.storage_class {
            if !STORAGE_CLASSES.contains(&class.as_str()) {
                return Err(s3s::S3Error::with_message(
                    s3s::S3ErrorCode::InvalidStorageClass,
                    format!("The storage class {class} is not offered"),
                ));
            }
            keep("x-amz-storage-class", Some(class).filter(|c| c != "STANDARD"));
        }
        let mut user_metadata: Vec<Pair> = self
            .metadata
            .into_iter()
            .flatten()
            .map(|(name, value)| Pair { name: name.to_lowercase(), value })
            .collect();
        user_metadata.sort_by(|a, b| a.name.cmp(&b.name));
        let bytes: usize = user_metadata.iter().map(|p| p.name.len() + p.value.len()).sum();
        if bytes > USER_METADATA_BYTES_MAX {
            return Err(s3s::S3Error::with_message(
                s3s::S3ErrorCode::MetadataTooLarge,
                format!(
                    "Your metadata headers exceed the maximum allowed metadata size of {USER_METADATA_BYTES_MAX} bytes"
                ),
            ));
        }
        let tags = self.tagging.as_deref().map(super::tagging::parse_header).transpose()?.unwrap_or_default();
        Ok(Attributes { content_type: self.content_type.unwrap_or_default(), headers, user_metadata, tags })
    }
}

fn http_date(timestamp: &Timestamp) -> Option<String> {
    let mut out = Vec::new();
    timestamp.format(TimestampFormat::HttpDate, &mut out).ok()?;
    String::from_utf8(out).ok()
}

/// A stored header by its name.
pub(super) fn header(version: &ObjectVersion, name: &str) -> Option<String> {
    version.attributes.iter().flat_map(|a| &a.headers).find(|h| h.name == name).map(|h| h.value.clone())
}

/// The stored `Expires`.
pub(super) fn expires(version: &ObjectVersion) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, &header(version, "expires")?).ok()
}

/// User metadata as S3 shows it.
pub(super) fn user_metadata(version: &ObjectVersion) -> Option<s3s::dto::Metadata> {
    let pairs = version.attributes.iter().flat_map(|a| &a.user_metadata);
    let map: s3s::dto::Metadata = pairs.map(|p| (p.name.clone(), p.value.clone())).collect();
    (!map.is_empty()).then_some(map)
}

/// Content-Type, or S3's default.
pub(super) fn content_type(version: &ObjectVersion) -> String {
    let given = version.attributes.as_ref().map(|a| a.content_type.clone()).filter(|t| !t.is_empty());
    given.unwrap_or_else(|| "binary/octet-stream".to_owned())
}

/// Appending writes (`x-amz-write-offset-bytes`) are of directory buckets.
pub(super) fn refuse_offset(offset: Option<i64>) -> S3Result<()> {
    match offset {
        None => Ok(()),
        Some(offset) if offset < 0 => Err(invalid_argument("x-amz-write-offset-bytes is negative")),
        Some(_) => Err(not_implemented("Writing at an offset")),
    }
}
