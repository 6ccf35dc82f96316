//! A POST form that was verified, as the PUT it stands for.
//!
//! Invariant: a field either becomes the header it stands for, is the form's own business, or is refused: none is
//! silently left out.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::body::Source;
use super::error::DoorError;
use super::form::{self, Form, success};
use super::forward::forwarded_head;
use super::limits::{BODY_BYTES_MAX, KEY_BYTES_MAX};
use super::path::{Target, encode_value};
use super::{Admitted, AuthenticatedRequest, Door, FormReply, RequestBody, principal};
use crate::object_path::{BodyError, BodyStream};
use crate::s3::context::RequestContext;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Fields that are headers of a PUT.
const HEADER_FIELDS: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
];
/// Beginnings of S3's own fields that are headers of a PUT; those that are not offered are refused behind the door.
const AMZ_FIELDS: [&str; 10] = [
    "x-amz-acl",
    "x-amz-checksum-",
    "x-amz-grant-",
    "x-amz-meta-",
    "x-amz-object-lock-",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-server-side-encryption",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
];
/// Fields that sign.
const SIGNING_FIELDS: [&str; 5] =
    ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature"];

impl Door {
    /// Verifies a form as far as its file.
    pub(super) async fn admit_form(
        &self,
        source: Source,
        content_type: &str,
        bucket: &str,
        request_id: &str,
    ) -> Result<Admitted, DoorError> {
        let form =
            form::read(source, content_type, bucket, &self.region, (self.clock)(), self.metadata.as_ref()).await?;
        let target = Target { bucket: bucket.to_owned(), key: form.key.clone() };
        check_key(&target.key)?;
        let headers = headers_of(&form)?;
        let (status, redirect) = success(
            form.field("success_action_status"),
            form.field("success_action_redirect").or_else(|| form.field("redirect")),
        );
        let reply = FormReply { bucket: target.bucket.clone(), key: target.key.clone(), status, redirect };
        let context = RequestContext {
            request_id: request_id.to_owned(),
            principal: principal(&form.signer),
            body_bytes: None,
            body_bytes_max: Some(form.bytes_max.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX)),
            trailers: None,
        };
        let body = at_least(form.file, form.bytes_min);
        let mut request = forwarded_head(&Method::PUT, &target, &[], &headers)?;
        request.extensions_mut().insert(context);
        Ok(Admitted::Form(AuthenticatedRequest { request, body: RequestBody::Object(body) }, reply))
    }
}

/// The rules that paths keep, for a key that came in a field.
fn check_key(key: &str) -> Result<(), DoorError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(DoorError::bad("KeyTooLongError", "A key has 1 to 1024 bytes"));
    }
    if key.contains('\0') {
        return Err(DoorError::bad("InvalidArgument", "A key holds no zero byte"));
    }
    Ok(())
}

fn headers_of(form: &Form) -> Result<HeaderMap, DoorError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &form.fields {
        let header = match name.as_str() {
            "acl" => "x-amz-acl",
            name if HEADER_FIELDS.contains(&name) => name,
            name if AMZ_FIELDS.iter().any(|known| name.starts_with(known)) => name,
            name if SIGNING_FIELDS.contains(&name) || !name.starts_with("x-amz-") => continue,
            name => return Err(DoorError::bad("InvalidArgument", format!("The form field {name} is not known"))),
        };
        let pair = (HeaderName::from_bytes(header.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        let (Ok(name), Ok(value)) = pair else {
            return Err(DoorError::bad("InvalidArgument", format!("The form field {header} cannot be a header")));
        };
        if headers.insert(name, value).is_some() {
            return Err(DoorError::bad("InvalidArgument", format!("The form field {header} is given more than once")));
        }
    }
    if let Some(xml) = form.field("tagging") {
        let value = HeaderValue::from_str(&tags_of_xml(xml)?).map_err(|_| DoorError::bad("MalformedXML", "tagging"))?;
        headers.insert("x-amz-tagging", value);
    }
    Ok(headers)
}

/// A file that must have at least so many bytes; at most is the object path's to check.
fn at_least(file: BodyStream, bytes_min: u64) -> BodyStream {
    futures::stream::unfold(Some((file, 0u64)), move |state| async move {
        let (mut file, seen) = state?;
        match file.next().await {
            Some(Ok(bytes)) => {
                let seen = seen.saturating_add(bytes.len() as u64);
                Some((Ok(bytes), Some((file, seen))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => (seen < bytes_min).then_some((Err(BodyError::TooSmall { minimum: bytes_min }), None)),
        }
    })
    .boxed()
}

/// The `tagging` field of a form: XML, as PutObjectTagging takes it, made into the header's form.
fn tags_of_xml(xml: &str) -> Result<String, DoorError> {
    let malformed = || DoorError::bad("MalformedXML", "The XML you provided was not well-formed or did not validate");
    let between = |text: &str, open: &str, close: &str| -> Option<String> {
        let (_, rest) = text.split_once(open)?;
        rest.split_once(close).map(|(inner, _)| inner.to_owned())
    };
    let mut tags = Vec::new();
    let mut rest = xml;
    while let Some((_, tag)) = rest.split_once("<Tag>") {
        let (one, after) = tag.split_once("</Tag>").ok_or_else(malformed)?;
        let name = between(one, "<Key>", "</Key>").ok_or_else(malformed)?;
        let value = between(one, "<Value>", "</Value>").unwrap_or_default();
        tags.push(format!("{}={}", encode_value(&unescaped(&name)), encode_value(&unescaped(&value))));
        rest = after;
    }
    Ok(tags.join("&"))
}

/// The five entities XML has of itself, in one pass.
fn unescaped(text: &str) -> String {
    const ENTITIES: [(&str, char); 5] =
        [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&apos;", '\'')];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let entity = ENTITIES.iter().find_map(|(name, meant)| Some((rest.strip_prefix(name)?, *meant)));
        let plain = || (rest.get(first.len_utf8()..).unwrap_or_default(), first);
        let (after, meant) = entity.unwrap_or_else(plain);
        out.push(meant);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use holdfast_proto::manifest::AccessKey;

    fn form(fields: &[(&str, &str)]) -> Form {
        Form {
            fields: fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            key: "k".into(),
            signer: AccessKey::default(),
            bytes_max: None,
            bytes_min: 0,
            file: futures::stream::empty().boxed(),
        }
    }

    #[test]
    fn fields_become_headers_or_are_refused() {
        let headers = headers_of(&form(&[
            ("acl", "private"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "ü"),
            ("x-amz-server-side-encryption-customer-key", "k"),
            ("x-amz-signature", "s"),
            ("submit", "x"),
            ("tagging", "<Tagging><TagSet><Tag><Key>a b</Key><Value>&amp;</Value></Tag></TagSet></Tagging>"),
        ]))
        .unwrap();
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected =
            ["content-type", "x-amz-acl", "x-amz-meta-a", "x-amz-server-side-encryption-customer-key", "x-amz-tagging"];
        assert_eq!(names, expected);
        assert_eq!(headers.get("x-amz-meta-a").unwrap().as_bytes(), "ü".as_bytes());
        assert_eq!(headers.get("x-amz-tagging").unwrap(), "a%20b=%26");
        for bad in [
            vec![("x-amz-copy-source", "/other/key")],
            vec![("x-amz-meta-a", "a\r\nx-amz-acl: public-read")],
            vec![("x-amz-meta-\u{fc}", "a")],
            vec![("acl", "private"), ("x-amz-acl", "public-read")],
        ] {
            assert_eq!(headers_of(&form(&bad)).unwrap_err().code, "InvalidArgument", "{bad:?}");
        }
        assert_eq!(headers_of(&form(&[("tagging", "<Tag><Key>a")])).unwrap_err().code, "MalformedXML");
        let long = "k".repeat(1025);
        for (key, code) in [("", "KeyTooLongError"), ("a\0b", "InvalidArgument"), (&long, "KeyTooLongError")] {
            assert_eq!(check_key(key).unwrap_err().code, code);
        }
    }

    #[test]
    fn a_file_below_the_policy_is_refused_at_its_end() {
        let run = |pieces: &[&'static str], minimum| {
            let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
            let stream = at_least(futures::stream::iter(pieces).boxed(), minimum);
            futures::executor::block_on(stream.collect::<Vec<_>>())
        };
        assert!(run(&["ab", "c"], 3).iter().all(Result::is_ok));
        assert_eq!(run(&["ab", "c"], 4).pop(), Some(Err(BodyError::TooSmall { minimum: 4 })));
    }
}
