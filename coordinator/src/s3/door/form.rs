//! Browser uploads: POST of a multipart form with a signed policy, turned into a PUT.
//!
//! Source: AWS, "Authenticating Requests in Browser-Based Uploads Using POST". Version 2 form signatures (HMAC-SHA1 of
//! the policy) are taken here, and only here: they cover the whole policy just as well, and many tools still make them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::body::Source;
use super::document::body_error;
use super::error::DoorError;
use super::limits::{FORM_FIELD_BYTES_MAX, FORM_FIELDS_BYTES_MAX, FORM_FIELDS_MAX};
use super::sigv4::{hmac, parse_timestamp, signing_key, split_credential};
use crate::metadata::Metadata;
use crate::object_path::{BodyError, BodyStream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use hmac::{Hmac, Mac};
use holdfast_proto::manifest::AccessKey;
use http::StatusCode;
use serde_json::Value;
use subtle::ConstantTimeEq;

/// Fields that need no condition in the policy.
const FREE_FIELDS: [&str; 6] = ["x-amz-signature", "signature", "awsaccesskeyid", "policy", "file", "submit"];

/// A form as far as its file, verified.
pub(crate) struct Form {
    /// Lower-case name and value, in the order sent.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) key: String,
    pub(crate) signer: AccessKey,
    /// From content-length-range.
    pub(crate) bytes_max: Option<u64>,
    pub(crate) bytes_min: u64,
    pub(crate) file: BodyStream,
}

impl Form {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn bad(message: &str) -> DoorError {
    DoorError::bad("MalformedPOSTRequest", message)
}

fn denied(message: &str) -> DoorError {
    DoorError::denied("AccessDenied", format!("Invalid according to Policy: {message}"))
}

/// Reads the fields, finds who signed the policy, judges the policy, and leaves the file to be streamed.
pub(crate) async fn read(
    source: Source,
    content_type: &str,
    bucket: &str,
    region: &str,
    now: u64,
    metadata: &dyn Metadata,
) -> Result<Form, DoorError> {
    let boundary = boundary(content_type).ok_or_else(|| bad("The content type has no boundary"))?;
    let mut reader = Reader::new(source, &boundary);
    let (fields, filename) = reader.fields().await?;
    let template = field(&fields, "key").ok_or_else(|| {
        DoorError::bad(
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
        )
    })?;
    let key = template.replace("${filename}", &filename);
    let Some(policy) = field(&fields, "policy") else {
        return Err(DoorError::denied("AccessDenied", "Access Denied"));
    };
    let signer = signer(&fields, policy, region, metadata)?;
    let (bytes_min, bytes_max) = judge(policy, &fields, &key, bucket, now)?;
    Ok(Form { key, signer, bytes_max, bytes_min, file: reader.file(), fields })
}

/// Whether the content type is that of a form.
pub(crate) fn is_multipart(content_type: &str) -> bool {
    let kind = content_type.split_once(';').map_or(content_type, |(kind, _)| kind);
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

fn boundary(content_type: &str) -> Option<String> {
    let (_, rest) = content_type.split_once(';')?;
    let value = rest.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?;
    let value = value.trim_matches('"');
    (!value.is_empty() && value.len() <= 70).then(|| value.to_owned())
}

fn signer(
    fields: &[(String, String)],
    policy: &str,
    region: &str,
    metadata: &dyn Metadata,
) -> Result<AccessKey, DoorError> {
    let unknown =
        || DoorError::denied("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.");
    let mismatch = || {
        DoorError::denied(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
    };
    let (claimed, expected, key) = if let Some(credential) = field(fields, "x-amz-credential") {
        if field(fields, "x-amz-algorithm") != Some("AWS4-HMAC-SHA256") {
            return Err(DoorError::bad("InvalidArgument", "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
        }
        let (access_key, date, scope_region) = split_credential(credential)
            .ok_or_else(|| DoorError::bad("InvalidArgument", "x-amz-credential is malformed"))?;
        let dated = field(fields, "x-amz-date").is_some_and(|d| d.starts_with(&date) && parse_timestamp(d).is_some());
        if scope_region != region || !dated {
            return Err(DoorError::bad(
                "InvalidArgument",
                "The credential's scope is not this region's, or x-amz-date is not its date",
            ));
        }
        let key = metadata.access_key(&access_key).ok_or_else(unknown)?;
        let expected = hex::encode(hmac(&signing_key(&key.secret_key, &date, region), policy.as_bytes()));
        (field(fields, "x-amz-signature"), expected, key)
    } else {
        let access_key = field(fields, "awsaccesskeyid").ok_or_else(|| {
            DoorError::bad("InvalidArgument", "Bucket POST must contain a field named 'AWSAccessKeyId'.")
        })?;
        let key = metadata.access_key(access_key).ok_or_else(unknown)?;
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(key.secret_key.as_bytes()).map_err(|_| mismatch())?;
        mac.update(policy.as_bytes());
        (field(fields, "signature"), BASE64.encode(mac.finalize().into_bytes()), key)
    };
    let claimed = claimed.ok_or_else(|| DoorError::bad("InvalidArgument", "Bucket POST must contain a signature"))?;
    if bool::from(expected.as_bytes().ct_eq(claimed.as_bytes())) { Ok(key) } else { Err(mismatch()) }
}

/// Judges every condition, and that every field has one. Gives the length range.
fn judge(
    policy: &str,
    fields: &[(String, String)],
    key: &str,
    bucket: &str,
    now: u64,
) -> Result<(u64, Option<u64>), DoorError> {
    let malformed = |what: &str| DoorError::bad("InvalidPolicyDocument", format!("Invalid Policy: {what}"));
    let json = BASE64.decode(policy).map_err(|_| malformed("not base64"))?;
    let policy: Value = serde_json::from_slice(&json).map_err(|_| malformed("Invalid JSON."))?;
    let expiration =
        policy.get("expiration").and_then(Value::as_str).ok_or_else(|| malformed("Policy missing expiration."))?;
    // The parser would take a blank for the T.
    let expires = Some(expiration)
        .filter(|text| text.as_bytes().get(10) == Some(&b'T'))
        .and_then(|text| time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok())
        .ok_or_else(|| malformed("Invalid 'expiration' value"))?;
    if expires.unix_timestamp() <= i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(denied("Policy expired."));
    }
    let conditions =
        policy.get("conditions").and_then(Value::as_array).ok_or_else(|| malformed("Policy missing conditions."))?;
    let value_of = |name: &str| match name {
        "bucket" => Some(bucket),
        "key" => Some(key),
        name => field(fields, name),
    };
    let mut covered: Vec<String> = Vec::new();
    let mut range = (0, None);
    for condition in conditions {
        match condition {
            Value::Object(pairs) => {
                if pairs.len() != 1 {
                    return Err(malformed(
                        "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.",
                    ));
                }
                for (name, expected) in pairs {
                    let name = name.to_lowercase();
                    let expected = expected.as_str().ok_or_else(|| malformed("a condition's value is not a string"))?;
                    if value_of(&name) != Some(expected) {
                        return Err(denied(&format!("Policy Condition failed: [\"eq\", \"${name}\", \"{expected}\"]")));
                    }
                    covered.push(name);
                }
            }
            Value::Array(list) => match list.as_slice() {
                [Value::String(op), low, high] if op.eq_ignore_ascii_case("content-length-range") => {
                    let number = |v: &Value| v.as_u64().or_else(|| v.as_str().and_then(|s| s.parse().ok()));
                    let (Some(low), Some(high)) = (number(low), number(high)) else {
                        return Err(malformed("content-length-range takes two numbers"));
                    };
                    // All conditions hold: of several ranges what they share.
                    range = (low.max(range.0), Some(range.1.map_or(high, |before: u64| before.min(high))));
                }
                [Value::String(op), Value::String(name), Value::String(expected)] => {
                    let name = name
                        .strip_prefix('$')
                        .ok_or_else(|| malformed("a condition's name begins with $"))?
                        .to_lowercase();
                    let value = value_of(&name).unwrap_or_default();
                    let holds = match op.to_lowercase().as_str() {
                        "eq" => value == expected,
                        // Content types may be a list of alternatives sent by the browser.
                        "starts-with" => value.starts_with(expected.as_str()),
                        _ => return Err(malformed("unknown condition")),
                    };
                    if !holds {
                        return Err(denied(&format!(
                            "Policy Condition failed: [\"{op}\", \"${name}\", \"{expected}\"]"
                        )));
                    }
                    covered.push(name);
                }
                _ => return Err(malformed("Invalid Condition")),
            },
            _ => return Err(malformed("Invalid Condition")),
        }
    }
    // The bucket is named by the address, not by a field; a policy that does not say which is good for none.
    let named = fields.iter().map(|(name, _)| name.as_str()).chain(["bucket"]);
    for name in named {
        let free = FREE_FIELDS.contains(&name)
            || name.starts_with("x-ignore-")
            // They can only make an upload fail, and are of bytes the policy's author cannot know.
            || name.starts_with("x-amz-checksum-")
            || name == "content-md5";
        if !free && !covered.iter().any(|c| c == name) {
            return Err(denied(&format!("Extra input fields: {name}")));
        }
    }
    Ok(range)
}

/// Takes a form apart piece by piece.
struct Reader {
    source: Source,
    buffer: BytesMut,
    /// `\r\n--boundary`.
    delimiter: Vec<u8>,
    /// Bytes that may still come before the file.
    budget: usize,
    ended: bool,
}

impl Reader {
    fn new(source: Source, boundary: &str) -> Self {
        // The first delimiter has no CRLF before it; one is put there.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self {
            source,
            buffer,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            budget: FORM_FIELDS_BYTES_MAX,
            ended: false,
        }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        match self.source.next().await? {
            Some(bytes) => self.buffer.extend_from_slice(&bytes),
            None => self.ended = true,
        }
        Ok(())
    }

    /// Where `needle` is, at or after `from`.
    fn find(&self, needle: &[u8], from: usize) -> Option<usize> {
        let rest = self.buffer.get(from..)?;
        rest.windows(needle.len()).position(|w| w == needle).map(|at| at.saturating_add(from))
    }

    /// Bytes before `needle`, which is consumed too. What comes before the file is bounded, each piece and all together.
    async fn until(&mut self, needle: &[u8]) -> Result<BytesMut, DoorError> {
        let too_long = || {
            DoorError::bad(
                "MaxPostPreDataLengthExceeded",
                "Your POST request fields preceding the upload file were too large.",
            )
        };
        let mut searched = 0usize;
        loop {
            if let Some(at) = self.find(needle, searched) {
                let used = at.saturating_add(needle.len());
                self.budget = self.budget.checked_sub(used).ok_or_else(too_long)?;
                let found = self.buffer.split_to(at);
                self.buffer.advance(needle.len());
                return if found.len() > FORM_FIELD_BYTES_MAX { Err(too_long()) } else { Ok(found) };
            }
            if self.buffer.len() > FORM_FIELD_BYTES_MAX.min(self.budget) {
                return Err(too_long());
            }
            if self.ended {
                return Err(bad("The body of your POST request is not well-formed multipart/form-data."));
            }
            // Only a beginning of the needle at the end needs to be looked at again.
            searched = self.buffer.len().saturating_sub(needle.len());
            self.fill().await.map_err(body_error)?;
        }
    }

    /// All fields before the file, and the file's name.
    async fn fields(&mut self) -> Result<(Vec<(String, String)>, String), DoorError> {
        let delimiter = self.delimiter.clone();
        let mut fields: Vec<(String, String)> = Vec::new();
        self.until(&delimiter).await?;
        while fields.len() <= FORM_FIELDS_MAX {
            let rest = self.until(b"\r\n").await?;
            if rest.starts_with(b"--") {
                return Err(DoorError::bad("InvalidArgument", "POST requires exactly one file upload per request."));
            }
            let disposition = self.disposition().await?;
            let name = parameter(&disposition, "name").ok_or_else(|| bad("A form field has no name"))?.to_lowercase();
            if name == "file" {
                return Ok((fields, parameter(&disposition, "filename").unwrap_or_default()));
            }
            let value = self.until(&delimiter).await?;
            let value = String::from_utf8(value.to_vec()).map_err(|_| bad("A form field is not UTF-8"))?;
            // The policy would be held against one of them, and the other be used.
            if field(&fields, &name).is_some() {
                return Err(DoorError::bad(
                    "InvalidArgument",
                    format!("The form field {name} is given more than once"),
                ));
            }
            fields.push((name, value));
        }
        Err(bad("The form has too many fields"))
    }

    /// The headers of one field, of which only the disposition matters.
    async fn disposition(&mut self) -> Result<String, DoorError> {
        let mut disposition = String::new();
        loop {
            let line = self.until(b"\r\n").await?;
            if line.is_empty() {
                return Ok(disposition);
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.to_ascii_lowercase().starts_with("content-disposition:") {
                disposition = line;
            }
        }
    }

    /// The file, up to the next delimiter.
    fn file(self) -> BodyStream {
        stream::unfold(Some(self), |state| async move {
            let mut reader = state?;
            match reader.next_of_file().await {
                Ok(Some((bytes, last))) => Some((Ok(bytes), if last { None } else { Some(reader) })),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next_of_file(&mut self) -> Result<Option<(Bytes, bool)>, BodyError> {
        loop {
            if let Some(at) = self.find(&self.delimiter, 0) {
                let bytes = self.buffer.split_to(at).freeze();
                return Ok((!bytes.is_empty()).then_some((bytes, true)));
            }
            // Anything but a possible beginning of the delimiter can go on.
            let safe = self.buffer.len().saturating_sub(self.delimiter.len());
            if safe > 0 {
                return Ok(Some((self.buffer.split_to(safe).freeze(), false)));
            }
            if self.ended {
                return Err(BodyError::Incomplete { reason: "the form ends within its file".to_owned() });
            }
            self.fill().await?;
        }
    }
}

/// A quoted or bare parameter of a header.
fn parameter(header: &str, name: &str) -> Option<String> {
    header.split(';').skip(1).find_map(|part| {
        let (n, value) = part.trim().split_once('=')?;
        n.eq_ignore_ascii_case(name).then(|| value.trim_matches('"').to_owned())
    })
}

/// What the browser is answered, by the form's wishes: status and, for a redirect, where to.
pub(crate) fn success(form_status: Option<&str>, redirect: Option<&str>) -> (StatusCode, Option<String>) {
    let redirect = redirect.filter(|r| r.starts_with("http://") || r.starts_with("https://"));
    match (redirect, form_status) {
        (Some(to), _) => (StatusCode::SEE_OTHER, Some(to.to_owned())),
        (None, Some("200")) => (StatusCode::OK, None),
        (None, Some("201")) => (StatusCode::CREATED, None),
        (None, _) => (StatusCode::NO_CONTENT, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_judged_field_by_field() {
        let fields =
            |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let policy = |conditions: &str| {
            BASE64.encode(format!("{{\"expiration\":\"2030-01-01T00:00:00Z\",\"conditions\":{conditions}}}"))
        };
        let good = policy(
            r#"[{"bucket":"b"},["starts-with","$key","up/"],["content-length-range",1,10],["eq","$acl","private"]]"#,
        );
        let sent = fields(&[
            ("key", "up/x"),
            ("acl", "private"),
            ("policy", "p"),
            ("x-ignore-me", "1"),
            ("x-amz-checksum-sha256", "c"),
        ]);
        assert_eq!(judge(&good, &sent, "up/x", "b", 1_700_000_000).unwrap(), (1, Some(10)));
        let ranges = policy(
            r#"[{"bucket":"b"},["starts-with","$key",""],["content-length-range",1,10],["content-length-range",0,99]]"#,
        );
        assert_eq!(judge(&ranges, &fields(&[("key", "k")]), "k", "b", 1).unwrap(), (1, Some(10)));
        let table = [
            (judge(&good, &sent, "up/x", "other", 1), "AccessDenied"),
            (judge(&good, &sent, "down/x", "b", 1), "AccessDenied"),
            (judge(&good, &sent, "up/x", "b", 4_000_000_000), "AccessDenied"),
            (
                judge(&good, &fields(&[("key", "up/x"), ("acl", "private"), ("extra", "1")]), "up/x", "b", 1),
                "AccessDenied",
            ),
            (judge("%%%", &sent, "up/x", "b", 1), "InvalidPolicyDocument"),
            (judge(&policy(r#"[{"a":"1","b":"2"}]"#), &sent, "k", "b", 1), "InvalidPolicyDocument"),
            (judge(&policy(r#"[["about","$key","x"]]"#), &sent, "k", "b", 1), "InvalidPolicyDocument"),
            (judge(&BASE64.encode("{}"), &sent, "k", "b", 1), "InvalidPolicyDocument"),
            (
                judge(&BASE64.encode(r#"{"expiration":"2030-01-01 00:00:00Z","conditions":[]}"#), &[], "k", "b", 1),
                "InvalidPolicyDocument",
            ),
            (judge(&policy(r#"[["starts-with","$key",""],{"acl":"private"}]"#), &sent, "k", "b", 1), "AccessDenied"),
        ];
        for (i, (result, code)) in table.into_iter().enumerate() {
            assert_eq!(result.unwrap_err().code, code, "case {i}");
        }
    }

    #[test]
    fn forms_come_apart_at_any_border() {
        let text = "--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\na/${filename}\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.txt\"\r\nContent-Type: text/plain\r\n\r\nline\r\n--not\r\n\r\n--B--\r\n";
        for size in [1, 2, 5, 13, 1000] {
            let source = Source::List(text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect());
            futures::executor::block_on(async {
                let mut reader = Reader::new(source, "B");
                let (fields, filename) = reader.fields().await.unwrap();
                assert_eq!(fields, [("key".to_owned(), "a/${filename}".to_owned())]);
                assert_eq!(filename, "f.txt");
                let mut file = reader.file();
                let mut all = Vec::new();
                while let Some(item) = file.next().await {
                    all.extend_from_slice(&item.unwrap());
                }
                assert_eq!(all, b"line\r\n--not\r\n", "pieces of {size}");
            });
        }
    }

    #[test]
    fn what_comes_before_the_file_is_bounded() {
        let part = |headers: &str, value: &str| format!("--B\r\n{headers}\r\n\r\n{value}\r\n");
        let named = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
        let endless = format!("X: {}\r\n", "y".repeat(1000)).repeat(1000);
        let table = [
            (part(&named("a"), "1") + &part(&named("A"), "2") + "--B--\r\n", "InvalidArgument"),
            ((0..1000).map(|i| part(&named(&i.to_string()), "")).collect(), "MalformedPOSTRequest"),
            (part(&named(""), "").repeat(3), "InvalidArgument"),
            (part(&named("a"), &"v".repeat(70 << 10)), "MaxPostPreDataLengthExceeded"),
            (format!("--B\r\n{endless}"), "MaxPostPreDataLengthExceeded"),
            (
                (0..9).map(|i| part(&named(&i.to_string()), &"v".repeat(60 << 10))).collect(),
                "MaxPostPreDataLengthExceeded",
            ),
            ("x".repeat(1 << 20), "MaxPostPreDataLengthExceeded"),
            (part("X: y", "1"), "MalformedPOSTRequest"),
            (part(&named("a"), "1") + "--B--\r\n", "InvalidArgument"),
            ("--B\r\nContent-".to_owned(), "MalformedPOSTRequest"),
            (String::new(), "MalformedPOSTRequest"),
        ];
        for (i, (text, code)) in table.into_iter().enumerate() {
            for size in [1000, 1 << 20] {
                let source = Source::List(text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect());
                let mut reader = Reader::new(source, "B");
                let found = futures::executor::block_on(reader.fields());
                assert_eq!(found.unwrap_err().code, code, "case {i}, pieces of {size}");
            }
        }
    }
}
