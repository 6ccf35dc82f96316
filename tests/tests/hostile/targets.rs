//! Where a request goes and what of it is wanted: paths, keys, queries, ranges, conditions, sub-resources.

use super::case::{Case, SMALL, World, case};

const URI: &str = "InvalidURI";
const ARGUMENT: &str = "InvalidArgument";

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let mut all = paths(world);
    all.extend(queries(world));
    all.extend(reads(world));
    all.extend(not_offered(world));
    all
}

fn paths(w: &World) -> Vec<Case> {
    let get = |target: &str| w.ask("GET", target).sign();
    let raw = |path: &[u8]| {
        [b"GET ".as_slice(), path, format!(" HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", w.host).as_bytes()]
            .concat()
    };
    let missing = "NoSuchKey";
    vec![
        case("climbing out of the bucket", get("/hostile/../vault/secret"), 404, missing),
        case("climbing, encoded", get("/hostile/%2e%2e/vault/secret"), 404, missing),
        case("climbing, encoded with slashes", get("/hostile/..%2fvault%2fsecret"), 404, missing),
        case("climbing, encoded twice", get("/hostile/%252e%252e/vault/secret"), 404, missing),
        case("climbing by backslashes", get("/hostile/..%5Cvault%5Csecret"), 404, missing),
        case("climbing out of everything", get("/../../etc/passwd"), 404, "NoSuchBucket"),
        case("climbing from the bucket's name", get("/hostile%2f..%2fvault/secret"), 404, ""),
        case("a bucket of dots", get("/../vault/secret"), 404, "NoSuchBucket"),
        case("a dot segment", get("/./vault/secret"), 404, "NoSuchBucket"),
        case("double slashes before the bucket", get("//vault/secret"), 400, "InvalidBucketName"),
        case("double slashes before the key", get("/vault//secret"), 403, "AccessDenied"),
        case("double slashes in the key", get("/hostile//small"), 404, missing),
        case("a zero byte", get("/hostile/small%00.txt"), 400, URI),
        case("a zero byte in the bucket", get("/vault%00/secret"), 400, URI),
        case("a percent sign alone", get("/hostile/100%"), 400, URI),
        case("half an escape", get("/hostile/a%2"), 400, URI),
        case("an escape that is not hexadecimal", get("/hostile/a%zz"), 400, URI),
        case("not UTF-8", get("/hostile/%FF%FE"), 400, URI),
        case("an overlong slash", get("/hostile/%C0%AF"), 400, URI),
        case("a surrogate", get("/hostile/%ED%A0%80"), 400, URI),
        case("raw bytes that are not UTF-8", raw(b"/hostile/\xff\xfe"), 400, "BadRequest"),
        case("a control character", raw(b"/hostile/\x01"), 400, "BadRequest"),
        case(
            "a key of 1025 bytes",
            w.ask("PUT", &format!("/hostile/{}", "k".repeat(1025))).body("a").sign(),
            400,
            "KeyTooLongError",
        ),
        case(
            "a key of 342 characters of 3 bytes",
            w.ask("PUT", &format!("/hostile/{}", "%E4%B8%AD".repeat(342))).body("a").sign(),
            400,
            "KeyTooLongError",
        ),
        case("a key of 1024 bytes", w.ask("PUT", &format!("/hostile/{}", "k".repeat(1024))).body("a").sign(), 200, ""),
        case("a target of 20 KiB", get(&format!("/hostile/small?prefix={}", "p".repeat(20 << 10))), 414, URI),
        case("a target of 60 KiB", get(&format!("/hostile/{}", "k".repeat(60 << 10))), 414, URI),
        case("a bucket's name in capitals", w.ask("PUT", "/Hostile-Two").sign(), 400, "InvalidBucketName"),
        case("a bucket's name of two letters", w.ask("PUT", "/ab").sign(), 400, "InvalidBucketName"),
        case("a bucket's name like an address", w.ask("PUT", "/192.168.0.1").sign(), 400, "InvalidBucketName"),
        case("a bucket's name with a slash", w.ask("PUT", "/a%2Fb%2Fc").body("a").sign(), 404, "NoSuchBucket"),
        case(
            "a bucket's name of 64 bytes",
            w.ask("PUT", &format!("/{}", "b".repeat(64))).sign(),
            400,
            "InvalidBucketName",
        ),
        case("a bucket of dots, made", w.ask("PUT", "/..").sign(), 400, "InvalidBucketName"),
    ]
}

fn queries(w: &World) -> Vec<Case> {
    let list = |query: &str| w.ask("GET", &format!("/hostile?list-type=2&{query}")).sign();
    vec![
        case("a page of less than nothing", list("max-keys=-1"), 400, ARGUMENT),
        case("a page of 99999999999", list("max-keys=99999999999"), 400, ARGUMENT),
        case("a page of some", list("max-keys=some"), 400, ARGUMENT),
        case("a token nobody gave", list("continuation-token=%21%21"), 400, ARGUMENT),
        case("a token of nothing", list("continuation-token="), 200, ""),
        case("an encoding nobody knows", list("encoding-type=base64"), 400, ARGUMENT),
        case("a query that is not UTF-8", list("prefix=%FF"), 400, URI),
        case("a query with half an escape", list("prefix=%2"), 400, URI),
        case("a version that is none", w.ask("GET", "/hostile/small?versionId=none").sign(), 400, ARGUMENT),
        case(
            "a version of a megabyte's kind",
            w.ask("GET", &format!("/hostile/small?versionId={}", "a".repeat(9000))).sign(),
            400,
            ARGUMENT,
        ),
        case(
            "a version twice",
            w.ask("GET", "/hostile/small?versionId=null&versionId=null").sign(),
            400,
            "InvalidRequest",
        ),
        case(
            "a version marker without a key",
            w.ask("GET", "/hostile?version-id-marker=x&versions").sign(),
            400,
            ARGUMENT,
        ),
        case(
            "an upload that is none",
            w.ask("PUT", "/hostile/parts?partNumber=1&uploadId=none").body("a").sign(),
            404,
            "NoSuchUpload",
        ),
        case(
            "an upload by climbing",
            w.ask("PUT", "/hostile/parts?partNumber=1&uploadId=..%2F..%2Fx").body("a").sign(),
            404,
            "NoSuchUpload",
        ),
        case(
            "another key's upload",
            w.ask("PUT", &format!("/hostile/other?partNumber=1&uploadId={}", w.upload)).body("a").sign(),
            404,
            "NoSuchUpload",
        ),
        case(
            "part 0",
            w.ask("PUT", &format!("/hostile/parts?partNumber=0&uploadId={}", w.upload)).body("a").sign(),
            400,
            ARGUMENT,
        ),
        case(
            "part 10001",
            w.ask("PUT", &format!("/hostile/parts?partNumber=10001&uploadId={}", w.upload)).body("a").sign(),
            400,
            ARGUMENT,
        ),
        case(
            "part -1",
            w.ask("PUT", &format!("/hostile/parts?partNumber=-1&uploadId={}", w.upload)).body("a").sign(),
            400,
            ARGUMENT,
        ),
        case(
            "part 2^64",
            w.ask("PUT", &format!("/hostile/parts?partNumber=18446744073709551616&uploadId={}", w.upload))
                .body("a")
                .sign(),
            400,
            ARGUMENT,
        ),
        case(
            "a list of parts from -1",
            w.ask("GET", &format!("/hostile/parts?part-number-marker=-1&uploadId={}", w.upload)).sign(),
            400,
            ARGUMENT,
        ),
        case(
            "attributes nobody knows",
            w.ask("GET", "/hostile/small?attributes").header("x-amz-object-attributes", "Everything").sign(),
            400,
            ARGUMENT,
        ),
    ]
}

fn reads(w: &World) -> Vec<Case> {
    let range = |name: &str, value: &str, status, code| {
        case(&format!("range {name}"), w.ask("GET", "/hostile/small").header("range", value).sign(), status, code)
    };
    let condition = |name: &str, header: &str, value: &str, status, code| {
        case(&format!("condition {name}"), w.ask("GET", "/hostile/small").header(header, value).sign(), status, code)
    };
    let unsatisfiable = "InvalidRange";
    vec![
        range("of the last 2^63 bytes", "bytes=-9223372036854775808", 206, ""),
        range("of the last 2^64-1 bytes", "bytes=-18446744073709551615", 206, ""),
        range("of the last 0 bytes", "bytes=-0", 416, unsatisfiable),
        range("after the end", &format!("bytes={}-", SMALL.len()), 416, unsatisfiable),
        range("far after the end", "bytes=9223372036854775806-9223372036854775807", 416, unsatisfiable),
        range("to 2^63-1", "bytes=0-9223372036854775807", 206, ""),
        range("of one byte", "bytes=0-0", 206, ""),
        range("of the last 10^24 bytes", "bytes=-1000000000000000000000000", 206, ""),
        range("from 2^64", "bytes=18446744073709551616-", 416, unsatisfiable),
        range("upside down", "bytes=5-2", 200, ""),
        range("of less than nothing", "bytes=--5", 200, ""),
        range("of words", "bytes=first-last", 200, ""),
        range("of another unit", "lines=0-1", 200, ""),
        range("many times over", &format!("bytes={}", vec!["0-"; 1000].join(",")), 200, ""),
        condition("of an ETag that differs", "if-match", "\"0\"", 412, "PreconditionFailed"),
        condition("of any ETag", "if-none-match", "*", 304, ""),
        condition("of a date that is none", "if-modified-since", "yesterday", 200, ""),
        case(
            "a range and a part",
            w.ask("GET", "/hostile/small?partNumber=1").header("range", "bytes=0-1").sign(),
            400,
            "InvalidRequest",
        ),
        case("a part that is not there", w.ask("GET", "/hostile/small?partNumber=7").sign(), 416, "InvalidPartNumber"),
        case("part 0 of an object", w.ask("GET", "/hostile/small?partNumber=0").sign(), 400, ARGUMENT),
        case(
            "a write if there is nothing",
            w.ask("PUT", "/hostile/small").body("a").header("if-none-match", "*").sign(),
            412,
            "PreconditionFailed",
        ),
        case(
            "a write if it is something else",
            w.ask("PUT", "/hostile/small").body("a").header("if-match", "\"0\"").sign(),
            412,
            "PreconditionFailed",
        ),
        case(
            "a write if there is something",
            w.ask("PUT", "/hostile/nothing-here").body("a").header("if-match", "*").sign(),
            404,
            "NoSuchKey",
        ),
    ]
}

fn not_offered(w: &World) -> Vec<Case> {
    let put = || w.ask("PUT", "/hostile/refused").body("a");
    let not = "NotImplemented";
    vec![
        case("a public ACL", put().header("x-amz-acl", "public-read-write").sign(), 501, not),
        case("a grant", put().header("x-amz-grant-full-control", "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"").sign(), 501, not),
        case("encryption", put().header("x-amz-server-side-encryption", "aws:kms").sign(), 501, not),
        case("encryption with half a customer's key", put().header("x-amz-server-side-encryption-customer-algorithm", "AES256").sign(), 400, ARGUMENT),
        case("encryption with a customer's key", put().header("x-amz-server-side-encryption-customer-algorithm", "AES256").header("x-amz-server-side-encryption-customer-key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").header("x-amz-server-side-encryption-customer-key-md5", "cLyPS3KoaSFGi/joRB3OUQ==").sign(), 501, not),
        case("a key for what is not encrypted", w.ask("GET", "/hostile/small").header("x-amz-server-side-encryption-customer-algorithm", "AES256").sign(), 400, ARGUMENT),
        case("a canned ACL nobody knows", put().header("x-amz-acl", "public-ready").sign(), 400, ARGUMENT),
        case("an ownership that is not kept", w.ask("PUT", "/hostile?ownershipControls").body("<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>").sign(), 501, not),
        case("a part without its upload", w.ask("PUT", "/hostile/refused?partNumber=1").body("a").sign(), 400, ARGUMENT),
        case("an upload begun by PUT", w.ask("PUT", "/hostile/refused?uploads").body("a").sign(), 501, not),
        case("a write of a version", w.ask("PUT", "/hostile/refused?versionId=null").body("a").sign(), 400, ARGUMENT),
        case("a bucket's part nobody knows, removed", w.ask("DELETE", "/hostile?metadataConfiguration").sign(), 501, not),
        case("an object's ACL, removed", w.ask("DELETE", "/hostile/small?acl").sign(), 501, not),
        case("object lock", put().header("x-amz-object-lock-mode", "COMPLIANCE").header("x-amz-object-lock-retain-until-date", "2099-01-01T00:00:00Z").sign(), 501, not),
        case("a storage class that is none", put().header("x-amz-storage-class", "GOLD").sign(), 400, "InvalidStorageClass"),
        case("an ACL as a document", w.ask("PUT", "/hostile?acl").body("<AccessControlPolicy/>").sign(), 501, not),
        case("a policy", w.ask("PUT", "/hostile?policy").body("{\"Statement\":[{\"Effect\":\"Allow\",\"Principal\":\"*\"}]}").sign(), 501, not),
        case("CORS", w.ask("PUT", "/hostile?cors").body("<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>").sign(), 501, not),
        case("a website", w.ask("PUT", "/hostile?website").body("<WebsiteConfiguration/>").sign(), 501, not),
        case("a notification", w.ask("PUT", "/hostile?notification").body("<NotificationConfiguration/>").sign(), 501, not),
        case("a query in SQL", w.ask("POST", "/hostile/small?select&select-type=2").body("<SelectObjectContentRequest><Expression>select 1</Expression><ExpressionType>SQL</ExpressionType><InputSerialization/><OutputSerialization/></SelectObjectContentRequest>").sign(), 501, not),
        case("2 KiB and more of metadata", put().header("x-amz-meta-a", &"m".repeat(2100)).sign(), 400, "MetadataTooLarge"),
        case("eleven tags", put().header("x-amz-tagging", &(0..11).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join("&")).sign(), 400, ""),
        case("a tag twice", put().header("x-amz-tagging", "a=1&a=2").sign(), 400, ""),
    ]
}
