//! XML: bombs, depth, size, wrong words; and uploads completed with what is not theirs.

use super::case::{Case, World, case};

const MALFORMED: &str = "MalformedXML";

pub(crate) fn cases(w: &World) -> Vec<Case> {
    let delete = |body: String| w.ask("POST", "/hostile?delete").body(body).sign();
    let keys = |count: usize| {
        let all: String = (0..count).map(|i| format!("<Object><Key>no-{i}</Key></Object>")).collect();
        format!("<Delete>{all}</Delete>")
    };
    let versioning = |body: &str| w.ask("PUT", "/hostile?versioning").body(body).sign();
    let tagging = |body: &str| w.ask("PUT", "/hostile/small?tagging").body(body).sign();
    let complete = |body: String| w.ask("POST", &format!("/hostile/parts?uploadId={}", w.upload)).body(body).sign();
    let parts = |list: &[(u64, &str)]| {
        let all: String = list
            .iter()
            .map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"))
            .collect();
        format!("<CompleteMultipartUpload>{all}</CompleteMultipartUpload>")
    };
    let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;\">]><Delete><Object><Key>&d;</Key></Object></Delete>";
    let external =
        "<!DOCTYPE d [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><Delete><Object><Key>&x;</Key></Object></Delete>";
    let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let many: Vec<(u64, &str)> = (1..=10_001).map(|n| (n, "0")).collect();
    vec![
        case("an entity bomb", delete(bomb.to_owned()), 400, MALFORMED),
        case("an external entity", delete(external.to_owned()), 400, MALFORMED),
        case("an entity nobody defined", delete("<Delete><Object><Key>&x;</Key></Object></Delete>".to_owned()), 400, MALFORMED),
        case("a zero byte by number", delete("<Delete><Object><Key>&#0;</Key></Object></Delete>".to_owned()), 400, MALFORMED),
        case("a number beyond Unicode", delete("<Delete><Object><Key>&#x110000;</Key></Object></Delete>".to_owned()), 400, MALFORMED),
        case("elements 100,000 deep", delete(deep(100_000)), 400, MALFORMED),
        case("elements 100,000 deep where they belong", delete(format!("<Delete><Object><Key>{}</Key></Object></Delete>", deep(100_000))), 400, MALFORMED),
        case("elements never closed", delete("<Delete><Object>".repeat(10_000)), 400, MALFORMED),
        case("an attribute of 1 MiB", delete(format!("<Delete a=\"{}\"></Delete>", "a".repeat(1 << 20))), 400, MALFORMED),
        case("a comment never closed", delete(format!("<Delete><!-- {}", "-".repeat(100_000))), 400, MALFORMED),
        case("nothing to delete", delete("<Delete></Delete>".to_owned()), 400, MALFORMED),
        case("no document", w.ask("POST", "/hostile?delete").length(Some("0")).sign(), 400, ""),
        case("not XML", delete("{\"Objects\":[]}".to_owned()), 400, MALFORMED),
        case("not UTF-8", w.ask("POST", "/hostile?delete").body(b"<Delete><Object><Key>\xff\xfe</Key></Object></Delete>".to_vec()).sign(), 400, MALFORMED),
        case("UTF-16", w.ask("POST", "/hostile?delete").body("\u{feff}<Delete/>".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).sign(), 400, MALFORMED),
        case("two documents", delete(format!("{}{}", keys(1), keys(1))), 400, MALFORMED),
        case("another document", delete("<Tagging><TagSet/></Tagging>".to_owned()), 400, MALFORMED),
        case("1001 keys to delete", delete(keys(1001)), 400, MALFORMED),
        case("200,000 keys to delete", delete(keys(200_000)), 400, MALFORMED),
        case("a document of 9 MiB without a length", chunked_document(w), 400, "MaxMessageLengthExceeded"),
        case("versioning on and off", versioning("<VersioningConfiguration><Status>Perhaps</Status></VersioningConfiguration>"), 400, MALFORMED),
        case("versioning of nothing", versioning(""), 400, ""),
        case("versioning with MFA", versioning("<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"), 501, "NotImplemented"),
        case("eleven tags", tagging(&format!("<Tagging><TagSet>{}</TagSet></Tagging>", (0..11).map(|i| format!("<Tag><Key>{i}</Key><Value>v</Value></Tag>")).collect::<String>())), 400, ""),
        case("a tag without a name", tagging("<Tagging><TagSet><Tag><Key></Key><Value>v</Value></Tag></TagSet></Tagging>"), 400, "InvalidTag"),
        case("a place that is none", w.ask("PUT", "/hostile-new").body("<CreateBucketConfiguration><LocationConstraint>the-moon</LocationConstraint></CreateBucketConfiguration>").sign(), 400, "InvalidLocationConstraint"),
        case("a bucket of rubbish", w.ask("PUT", "/hostile-new").body("rubbish").sign(), 400, MALFORMED),
        case("completing nothing", complete(parts(&[])), 400, MALFORMED),
        case("completing rubbish", complete("<CompleteMultipartUpload><Part></Part></CompleteMultipartUpload>".to_owned()), 400, MALFORMED),
        case("completing parts nobody sent", complete(parts(&[(1, "0")])), 400, "InvalidPart"),
        case("completing out of order", complete(parts(&[(2, "0"), (1, "0")])), 400, "InvalidPartOrder"),
        case("completing a part twice", complete(parts(&[(1, "0"), (1, "0")])), 400, "InvalidPartOrder"),
        case("completing 10,001 parts", complete(parts(&many)), 400, "InvalidArgument"),
        case("completing part 2^64", complete(parts(&[(u64::MAX, "0")])), 400, MALFORMED),
        case("completing no upload", w.ask("POST", "/hostile/parts?uploadId=none").body(parts(&[(1, "0")])).sign(), 404, "NoSuchUpload"),
        case("aborting no upload", w.ask("DELETE", "/hostile/parts?uploadId=none").sign(), 404, "NoSuchUpload"),
    ]
}

/// More than a document may have, in chunks of HTTP.
fn chunked_document(w: &World) -> Vec<u8> {
    let head =
        w.ask("POST", "/hostile?delete").payload("UNSIGNED-PAYLOAD").unsigned("transfer-encoding", "chunked").sign();
    let piece = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    [head, piece.repeat(9), b"0\r\n\r\n".to_vec()].concat()
}
