//! Signatures: forms that are not there, what they cover, scope, clock, two at once; and who may do what.

use super::case::{Case, World, case};

const DENIED: &str = "AccessDenied";
const MALFORMED: &str = "AuthorizationHeaderMalformed";
const QUERY: &str = "AuthorizationQueryParametersError";
const MISMATCH: &str = "SignatureDoesNotMatch";

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let mut all = headers(world);
    all.extend(queries(world));
    all.extend(principals(world));
    all
}

fn plain(world: &World, method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n{headers}connection: close\r\n\r\n", world.host)
}

fn headers(w: &World) -> Vec<Case> {
    let get = || w.ask("GET", "/hostile/small");
    let authorization = |value: &str| {
        plain(
            w,
            "GET",
            "/hostile/small",
            &format!(
                "authorization: {value}\r\nx-amz-date: 20260101T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"
            ),
        )
    };
    let scope = "mallory-access-key/20260101/us-east-1/s3/aws4_request";
    let repeated =
        format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders=host{},Signature=0", ";host".repeat(5000));
    vec![
        case("anonymous read", plain(w, "GET", "/hostile/small", ""), 403, DENIED),
        case("anonymous write", plain(w, "PUT", "/hostile/x", "content-length: 0\r\n"), 403, DENIED),
        case("anonymous list of buckets", plain(w, "GET", "/", ""), 403, DENIED),
        case("anonymous read of no bucket", plain(w, "GET", "/no-such-bucket/x", ""), 403, DENIED),
        case("conditions before authentication", plain(w, "GET", "/vault/secret", "if-none-match: *\r\n"), 403, DENIED),
        case("a match before authentication", plain(w, "GET", "/vault/secret", "if-match: \"x\"\r\n"), 403, DENIED),
        case("a range before authentication", plain(w, "GET", "/vault/secret", "range: bytes=0-1\r\n"), 403, DENIED),
        case(
            "a date before authentication",
            plain(w, "HEAD", "/vault/secret", "if-modified-since: Fri, 24 May 2030 00:00:00 GMT\r\n"),
            403,
            "",
        ),
        case("signature version 2 of another day", authorization("AWS mallory:c2ln"), 403, "RequestTimeTooSkewed"),
        case(
            "signature version 2 of no day",
            plain(w, "GET", "/hostile/small", "authorization: AWS mallory:c2ln\r\n"),
            403,
            DENIED,
        ),
        case("half a signature version 2", authorization("AWS mallory"), 400, "InvalidArgument"),
        case("signature version 4A", authorization("AWS4-ECDSA-P256-SHA256 Credential=a"), 501, "NotImplemented"),
        case("basic authentication", authorization("Basic bWFsbG9yeTp4"), 400, "InvalidArgument"),
        case("a bearer token", authorization("Bearer eyJhbGciOiJub25lIn0.e30."), 400, "InvalidArgument"),
        case("an empty authorization", authorization(""), 400, "InvalidArgument"),
        case("nothing after the algorithm", authorization("AWS4-HMAC-SHA256"), 400, MALFORMED),
        case(
            "fields without values",
            authorization("AWS4-HMAC-SHA256 Credential,SignedHeaders,Signature"),
            400,
            MALFORMED,
        ),
        case(
            "a field twice",
            authorization(&format!(
                "AWS4-HMAC-SHA256 Credential={scope},Credential={scope},SignedHeaders=host,Signature=0"
            )),
            400,
            MALFORMED,
        ),
        case(
            "an unknown field",
            authorization(&format!("AWS4-HMAC-SHA256 Credential={scope},SignedHeaders=host,Signature=0,Extra=1")),
            400,
            MALFORMED,
        ),
        case(
            "a credential of two fields",
            authorization("AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=host,Signature=0"),
            400,
            MALFORMED,
        ),
        case("a header name 5000 times", authorization(&repeated), 400, MALFORMED),
        case(
            "authorization that is not text",
            [b"GET /hostile/small HTTP/1.1\r\nhost: h\r\nauthorization: \xff\xfe\r\nconnection: close\r\n\r\n"
                .as_slice()]
            .concat(),
            400,
            MALFORMED,
        ),
        case(
            "two authorizations",
            get().unsigned("authorization", "AWS4-HMAC-SHA256 x").sign(),
            400,
            "InvalidArgument",
        ),
        case("a wrong secret", get().by(|s| s.secret_key.push('x')).sign(), 403, MISMATCH),
        case("an unknown key", get().by(|s| s.access_key = "nobody".into()).sign(), 403, "InvalidAccessKeyId"),
        case("host not signed", get().omit("host").sign(), 403, DENIED),
        case("x-amz-date not signed", get().omit("x-amz-date").sign(), 403, DENIED),
        case("x-amz-content-sha256 not signed", get().omit("x-amz-content-sha256").sign(), 403, DENIED),
        case(
            "x-amz-meta not signed",
            w.ask("PUT", "/hostile/x").body("a").unsigned("x-amz-meta-a", "b").sign(),
            403,
            DENIED,
        ),
        case(
            "x-amz-acl not signed",
            w.ask("PUT", "/hostile/x").body("a").unsigned("x-amz-acl", "public-read").sign(),
            403,
            DENIED,
        ),
        case(
            "a copy source not signed",
            w.ask("PUT", "/hostile/x").length(Some("0")).unsigned("x-amz-copy-source", "/hostile/small").sign(),
            403,
            DENIED,
        ),
        case("a signed header not sent", get().header("x-amz-meta-a", "b").omit("host").sign(), 403, DENIED),
        case("a foreign region", get().by(|s| s.region = "eu-west-1".into()).sign(), 400, MALFORMED),
        case("an empty region", get().by(|s| s.region.clear()).sign(), 400, MALFORMED),
        case("a foreign service", get().by(|s| s.service = "ec2".into()).sign(), 400, MALFORMED),
        case("the administration's service", get().by(|s| s.service = "holdfast-admin".into()).sign(), 400, MALFORMED),
        case("a scope of another day", get().by(|s| s.scope_date = Some("20200101".into())).sign(), 400, MALFORMED),
        case("a scope of no day", get().by(|s| s.scope_date = Some("yesterda".into())).sign(), 400, MALFORMED),
        case("a clock 16 minutes slow", get().by(|s| s.skew = -960).sign(), 403, "RequestTimeTooSkewed"),
        case("a clock 16 minutes fast", get().by(|s| s.skew = 960).sign(), 403, "RequestTimeTooSkewed"),
        case("a clock 14 minutes slow", get().by(|s| s.skew = -840).sign(), 200, ""),
        case("a payload value of no meaning", get().payload("SHA256-PLEASE").sign(), 400, "InvalidArgument"),
        case("a payload in lower case", get().payload("unsigned-payload").sign(), 400, "InvalidArgument"),
        case("an empty payload value", get().payload("").sign(), 400, "InvalidArgument"),
        case(
            "an ECDSA streaming payload",
            get().payload("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD").sign(),
            400,
            "InvalidArgument",
        ),
        case(
            "an event stream payload",
            get().payload("STREAMING-AWS4-HMAC-SHA256-EVENTS").sign(),
            400,
            "InvalidArgument",
        ),
        case("x-amz-date twice", get().unsigned("x-amz-date", "20130524T000000Z").sign(), 400, "InvalidRequest"),
        case(
            "x-amz-content-sha256 twice",
            get().unsigned("x-amz-content-sha256", "UNSIGNED-PAYLOAD").sign(),
            400,
            "InvalidRequest",
        ),
    ]
}

fn queries(w: &World) -> Vec<Case> {
    let get = || w.ask("GET", "/hostile/small");
    let put = || w.ask("PUT", "/hostile/presigned").length(Some("0"));
    let raw = |target: &str| plain(w, "GET", target, "");
    let presigned = |from: &str, to: &str| {
        let text = String::from_utf8(get().presign("60")).expect("text");
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1)
    };
    vec![
        case("presigned as it should be", get().presign("60"), 200, ""),
        case("presigned for more than seven days", get().presign("604801"), 400, QUERY),
        case("presigned for ever", get().presign("99999999999999999999"), 400, QUERY),
        case("presigned for no time", get().presign("0"), 400, QUERY),
        case("presigned for less than that", get().presign("-1"), 400, QUERY),
        case("presigned and expired", get().by(|s| s.skew = -600).presign("60"), 403, DENIED),
        case("presigned in the future", get().by(|s| s.skew = 3600).presign("60"), 403, DENIED),
        case("presigned for another method", presigned("GET ", "DELETE "), 403, MISMATCH),
        case("presigned for another key", presigned("/small", "/other"), 403, MISMATCH),
        case("presigned for another bucket", presigned("/hostile/", "/vault/"), 403, MISMATCH),
        case("presigned with a query added", presigned("?", "?versionId=null&"), 403, MISMATCH),
        case("presigned with a longer life", presigned("Expires=60", "Expires=6000"), 403, MISMATCH),
        case("presigned with a parameter twice", presigned("?", "?X-Amz-Expires=60&"), 400, QUERY),
        case("presigned without a signature", presigned("X-Amz-Signature", "X-Signature"), 400, QUERY),
        case("presigned by another algorithm", presigned("HMAC-SHA256", "HMAC-MD5"), 400, QUERY),
        case("presigned for a foreign region", get().by(|s| s.region = "eu-west-1".into()).presign("60"), 400, QUERY),
        case("presigned without the host", get().omit("host").presign("60"), 403, DENIED),
        case(
            "presigned and signed in the header",
            presigned("connection:", "authorization: AWS4-HMAC-SHA256 x\r\nconnection:"),
            400,
            "InvalidArgument",
        ),
        case(
            "presigned twice, by version 2 too",
            presigned("?", "?AWSAccessKeyId=a&Signature=b&Expires=1&"),
            403,
            MISMATCH,
        ),
        case(
            "a copy source added to a presigned PUT",
            put().unsigned("x-amz-copy-source", "/vault/secret").presign("60"),
            403,
            DENIED,
        ),
        case("metadata added to a presigned PUT", put().unsigned("x-amz-meta-a", "b").presign("60"), 403, DENIED),
        case("an ACL added to a presigned PUT", put().unsigned("x-amz-acl", "public-read").presign("60"), 403, DENIED),
        case("a tag added to a presigned PUT", put().unsigned("x-amz-tagging", "a=b").presign("60"), 403, DENIED),
        case(
            "streaming without chunks, presigned",
            put()
                .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                .unsigned("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                .presign("60"),
            403,
            DENIED,
        ),
        case(
            "signature version 2 in the query",
            raw("/hostile/small?AWSAccessKeyId=a&Signature=b&Expires=99999999999"),
            400,
            "InvalidRequest",
        ),
        case("a presigned query cut short", raw("/hostile/small?X-Amz-Algorithm=AWS4-HMAC-SHA256"), 400, QUERY),
        case(
            "an empty presigned query",
            raw("/hostile/small?X-Amz-Algorithm=&X-Amz-Credential=&X-Amz-Signature="),
            400,
            QUERY,
        ),
    ]
}

fn principals(w: &World) -> Vec<Case> {
    let copy =
        |source: &str| w.ask("PUT", "/hostile/copied").length(Some("0")).header("x-amz-copy-source", source).sign();
    let part = format!("/hostile/parts?partNumber=1&uploadId={}", w.upload);
    let delete = "<Delete><Object><Key>secret</Key></Object></Delete>";
    vec![
        case("somebody else's object", w.ask("GET", "/vault/secret").sign(), 403, DENIED),
        case("somebody else's object, asked about", w.ask("HEAD", "/vault/secret").sign(), 403, ""),
        case(
            "somebody else's object, if changed",
            w.ask("GET", "/vault/secret").header("if-none-match", "*").sign(),
            403,
            DENIED,
        ),
        case("somebody else's object, presigned", w.ask("GET", "/vault/secret").presign("60"), 403, DENIED),
        case("somebody else's list", w.ask("GET", "/vault?list-type=2").sign(), 403, DENIED),
        case("somebody else's versions", w.ask("GET", "/vault?versions").sign(), 403, DENIED),
        case("somebody else's uploads", w.ask("GET", "/vault?uploads").sign(), 403, DENIED),
        case("somebody else's ACL", w.ask("GET", "/vault/secret?acl").sign(), 403, DENIED),
        case("somebody else's tags", w.ask("GET", "/vault/secret?tagging").sign(), 403, DENIED),
        case(
            "somebody else's attributes",
            w.ask("GET", "/vault/secret?attributes").header("x-amz-object-attributes", "ETag").sign(),
            403,
            DENIED,
        ),
        case("writing into somebody else's bucket", w.ask("PUT", "/vault/x").body("a").sign(), 403, DENIED),
        case("deleting somebody else's object", w.ask("DELETE", "/vault/secret").sign(), 403, DENIED),
        case("deleting many of somebody else's", w.ask("POST", "/vault?delete").body(delete).sign(), 403, DENIED),
        case("deleting somebody else's bucket", w.ask("DELETE", "/vault").sign(), 403, DENIED),
        case("making somebody else's bucket", w.ask("PUT", "/vault").sign(), 409, "BucketAlreadyExists"),
        case(
            "versioning somebody else's bucket",
            w.ask("PUT", "/vault?versioning")
                .body("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
                .sign(),
            403,
            DENIED,
        ),
        case("uploading to somebody else's bucket", w.ask("POST", "/vault/x?uploads").sign(), 403, DENIED),
        case("copying from somebody else's bucket", copy("/vault/secret"), 403, DENIED),
        case(
            "copying a part from somebody else's",
            w.ask("PUT", &part).length(Some("0")).header("x-amz-copy-source", "vault/secret").sign(),
            403,
            DENIED,
        ),
        case("copying by climbing", copy("/hostile/../vault/secret"), 404, "NoSuchKey"),
        case("copying by climbing, encoded", copy("/hostile/%2e%2e/vault/secret"), 404, "NoSuchKey"),
        case("copying by a backslash", copy("/hostile\\..\\vault\\secret"), 400, "InvalidArgument"),
        case("copying from nowhere", copy("/"), 400, "InvalidArgument"),
        case("copying from an access point", copy("arn:aws:s3:us-east-1:1:accesspoint/a/object/b"), 400, ""),
        case(
            "copying two sources",
            w.ask("PUT", "/hostile/copied")
                .length(Some("0"))
                .header("x-amz-copy-source", "/hostile/small")
                .unsigned("x-amz-copy-source", "/vault/secret")
                .sign(),
            400,
            "InvalidRequest",
        ),
    ]
}
