//! POST forms: policies, their signatures, fields and files.

use super::case::{Case, World, case};
use holdfast_tests::signing::{Signer, encode_policy};

const DENIED: &str = "AccessDenied";
const ARGUMENT: &str = "InvalidArgument";
const TOO_LONG: &str = "MaxPostPreDataLengthExceeded";
const MALFORMED: &str = "MalformedPOSTRequest";
const POLICY: &str = "InvalidPolicyDocument";
/// Conditions on the fields that sign.
const SIGNING: &str =
    r#"["starts-with","$x-amz-credential",""],["starts-with","$x-amz-algorithm",""],["starts-with","$x-amz-date",""]"#;
const GOOD: &str = r#"{"bucket":"hostile"},["starts-with","$key","form/"]"#;

type Fields = Vec<(String, String)>;

fn policy(expiration: &str, conditions: &str) -> String {
    encode_policy(&format!(r#"{{"expiration":"{expiration}","conditions":[{conditions},{SIGNING}]}}"#))
}

fn fields(signer: &Signer, policy: &str) -> Fields {
    let mut all = vec![("key".to_owned(), "form/x".to_owned())];
    all.extend(signer.form_fields(policy));
    all
}

fn form(w: &World, bucket: &str, fields: &Fields, file: Option<&str>) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    if let Some(file) = file {
        body.push_str(&format!(
            "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{file}\r\n"
        ));
    }
    body.push_str("--B--\r\n");
    post(w, bucket, "", &body)
}

fn post(w: &World, bucket: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /{bucket} HTTP/1.1\r\nhost: {}\r\n{headers}content-type: multipart/form-data; boundary=B\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        w.host,
        body.len()
    )
    .into_bytes()
}

pub(crate) fn cases(w: &World) -> Vec<Case> {
    let late = "2099-01-01T00:00:00Z";
    let signed = |conditions: &str| fields(&w.mallory, &policy(late, conditions));
    let good = || signed(GOOD);
    let with = |name: &str, value: &str| {
        let mut all = good();
        all.push((name.to_owned(), value.to_owned()));
        all
    };
    let without = |name: &str| good().into_iter().filter(|(n, _)| n != name).collect::<Fields>();
    let changed = |name: &str, value: &str| {
        good().into_iter().map(|(n, v)| if n == name { (n, value.to_owned()) } else { (n, v) }).collect::<Fields>()
    };
    let send = |fields: &Fields| form(w, "hostile", fields, Some("file"));
    let text = |json: &str| send(&fields(&w.mallory, &encode_policy(json)));
    let region = |region: &str| fields(&Signer { region: region.into(), ..w.mallory.clone() }, &policy(late, GOOD));
    let mut extra = signed(&format!(r#"{GOOD},{{"x-amz-copy-source":"/vault/secret"}}"#));
    extra.push(("x-amz-copy-source".into(), "/vault/secret".into()));
    let mut public = signed(&format!(r#"{GOOD},{{"acl":"public-read"}}"#));
    public.push(("acl".into(), "public-read".into()));
    let mut twice = signed(&format!(r#"{GOOD},{{"content-type":"text/plain"}}"#));
    twice.extend([("content-type", "text/plain"), ("Content-Type", "text/html")].map(|(n, v)| (n.into(), v.into())));
    let range = |low: u64, high: u64| send(&signed(&format!(r#"{GOOD},["content-length-range",{low},{high}]"#)));
    let nameless = "--B\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n".repeat(3000);
    let many: Fields = (0..2000).map(|i| (format!("x-ignore-{i}"), String::new())).collect();
    vec![
        case("a form as it should be", send(&good()), 204, ""),
        case("a form without a policy", send(&without("policy")), 403, DENIED),
        case("a form without a signature", send(&without("x-amz-signature")), 400, ARGUMENT),
        case("a form without a credential", send(&without("x-amz-credential")), 400, ARGUMENT),
        case("a form without a date", send(&without("x-amz-date")), 400, ARGUMENT),
        case("a form without a key", send(&without("key")), 400, ARGUMENT),
        case("a form without a file", form(w, "hostile", &good(), None), 400, ARGUMENT),
        case(
            "a form of a wrong signature",
            send(&changed("x-amz-signature", &"0".repeat(64))),
            403,
            "SignatureDoesNotMatch",
        ),
        case(
            "a form of another policy",
            send(&changed("policy", &policy(late, r#"["starts-with","$key",""]"#))),
            403,
            "SignatureDoesNotMatch",
        ),
        case("a form of another algorithm", send(&changed("x-amz-algorithm", "AWS4-HMAC-MD5")), 400, ARGUMENT),
        case(
            "a form of an unknown key",
            send(&fields(&Signer { access_key: "nobody".into(), ..w.mallory.clone() }, &policy(late, GOOD))),
            403,
            "InvalidAccessKeyId",
        ),
        case("a form of a foreign region", send(&region("eu-west-1")), 400, ARGUMENT),
        case("a form of an empty region", send(&region("")), 400, ARGUMENT),
        case("a form for a key outside the policy", send(&changed("key", "elsewhere/x")), 403, DENIED),
        case("a form for somebody else's bucket", form(w, "vault", &good(), Some("file")), 403, DENIED),
        case(
            "a form for somebody else's bucket, said so",
            form(w, "vault", &signed(r#"{"bucket":"vault"},["starts-with","$key",""]"#), Some("file")),
            403,
            DENIED,
        ),
        case("a form whose policy names no bucket", send(&signed(r#"["starts-with","$key",""]"#)), 403, DENIED),
        case("an expired form", send(&fields(&w.mallory, &policy("2020-01-01T00:00:00Z", GOOD))), 403, DENIED),
        case("a form that expires at no time", send(&fields(&w.mallory, &policy("never", GOOD))), 400, POLICY),
        case("a policy without an expiration", text(r#"{"conditions":[]}"#), 400, POLICY),
        case("a policy without conditions", text(r#"{"expiration":"2099-01-01T00:00:00Z"}"#), 400, POLICY),
        case("a policy that is not JSON", text("<Policy/>"), 400, POLICY),
        case("a policy that is not base64", send(&fields(&w.mallory, "***")), 400, POLICY),
        case("a policy 10,000 deep", text(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))), 400, POLICY),
        case("a condition nobody knows", send(&signed(&format!(r#"{GOOD},["ends-with","$key","x"]"#))), 400, POLICY),
        case("a field the policy does not name", send(&with("x-amz-meta-a", "b")), 403, DENIED),
        case("a field twice", send(&twice), 400, ARGUMENT),
        case("a key twice", send(&with("key", "form/../../vault/x")), 400, ARGUMENT),
        case("a copy source in a form", send(&extra), 400, ARGUMENT),
        case("a public ACL in a form", send(&public), 501, "NotImplemented"),
        case("a file larger than the policy", range(0, 3), 400, "EntityTooLarge"),
        case("a file smaller than the policy", range(5, 10), 400, "EntityTooSmall"),
        case("a range upside down", range(10, 5), 400, ""),
        case(
            "a key of 1025 bytes in a form",
            send(&changed("key", &format!("form/{}", "k".repeat(1020)))),
            400,
            "KeyTooLongError",
        ),
        case("a zero byte in a form's key", send(&changed("key", "form/a\0b")), 400, ARGUMENT),
        case("a field of 100 KiB", send(&with("x-ignore-a", &"v".repeat(100 << 10))), 400, TOO_LONG),
        case("2000 fields", send(&many), 400, MALFORMED),
        case("fields without names", post(w, "hostile", "", &nameless), 400, ARGUMENT),
        case(
            "header lines without end",
            post(w, "hostile", "", &format!("--B\r\n{}", "X-Junk: junk\r\n".repeat(50_000))),
            400,
            TOO_LONG,
        ),
        case("no form in it", post(w, "hostile", "", "hello"), 400, MALFORMED),
        case("an empty form", post(w, "hostile", "", "--B--\r\n"), 400, ARGUMENT),
        case(
            "a form that ends within its file",
            post(w, "hostile", "", &String::from_utf8_lossy(&unfinished(&good()))),
            400,
            "IncompleteBody",
        ),
        case(
            "a form and an authorization",
            post(w, "hostile", "authorization: AWS4-HMAC-SHA256 x\r\n", "--B--\r\n"),
            400,
            ARGUMENT,
        ),
        case(
            "a form without a boundary",
            w.ask("POST", "/hostile").header("content-type", "multipart/form-data").body("x").sign(),
            400,
            "",
        ),
        case(
            "a form posted to a key",
            w.ask("POST", "/hostile/x").header("content-type", "multipart/form-data; boundary=B").body("x").sign(),
            405,
            "MethodNotAllowed",
        ),
        case(
            "a form posted to nowhere",
            w.ask("POST", "/").header("content-type", "multipart/form-data; boundary=B").body("x").sign(),
            405,
            "MethodNotAllowed",
        ),
    ]
}

fn unfinished(fields: &Fields) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
    }
    body.push_str("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhalf a fi");
    body.into_bytes()
}
