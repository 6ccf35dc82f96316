//! Bodies: aws-chunked framing, signatures and trailers; lengths; digests.

use super::case::{Case, World, case};
use holdfast_tests::signing::{ChunkChain, Probe};

const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const MISMATCH: &str = "SignatureDoesNotMatch";
const INVALID: &str = "InvalidRequest";
const SHORT: &str = "IncompleteBody";
/// Of `hello`.
const CRC32: &str = "x-amz-checksum-crc32:NhCmhg==";

pub(crate) fn cases(world: &World) -> Vec<Case> {
    let mut all = signed_chunks(world);
    all.extend(trailers(world));
    all.extend(lengths(world));
    all.extend(digests(world));
    all
}

fn put(w: &World, key: &str) -> Probe {
    w.ask("PUT", &format!("/hostile/{key}"))
}

fn good(chain: &mut ChunkChain) -> Vec<u8> {
    [chain.chunk(b"hello"), chain.chunk(b""), b"\r\n".to_vec()].concat()
}

fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

fn signed_chunks(w: &World) -> Vec<Case> {
    let bent = |name: &str, decoded: Option<&str>, status, code, frame: &dyn Fn(&mut ChunkChain) -> Vec<u8>| {
        case(&format!("signed chunks: {name}"), put(w, "chunks").stream(SIGNED, decoded, |c| frame(c)), status, code)
    };
    vec![
        bent("as they should be", Some("5"), 200, "", &good),
        bent("a byte changed", Some("5"), 403, MISMATCH, &|c| replaced(good(c), "hello", "hullo")),
        bent("a signature changed", Some("5"), 403, MISMATCH, &|c| {
            replaced(good(c), "chunk-signature=", "chunk-signature=0")
        }),
        bent("no signatures", Some("5"), 400, INVALID, &|_| b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        bent("empty signatures", Some("5"), 400, INVALID, &|_| {
            b"5;chunk-signature=\r\nhello\r\n0;chunk-signature=\r\n\r\n".to_vec()
        }),
        bent("the chain out of order", Some("10"), 403, MISMATCH, &|c| {
            let (one, two) = (c.chunk(b"hello"), c.chunk(b"world"));
            [two, one, c.chunk(b""), b"\r\n".to_vec()].concat()
        }),
        bent("a chunk twice", Some("10"), 403, MISMATCH, &|c| {
            let one = c.chunk(b"hello");
            [one.clone(), one, c.chunk(b""), b"\r\n".to_vec()].concat()
        }),
        bent("the last chunk missing", Some("5"), 400, SHORT, &|c| c.chunk(b"hello")),
        bent("the last chunk of another signature", Some("5"), 403, MISMATCH, &|c| {
            [c.chunk(b"hello"), format!("0;chunk-signature={}\r\n\r\n", "0".repeat(64)).into_bytes()].concat()
        }),
        bent("cut within a chunk", Some("5"), 400, SHORT, &|c| {
            let mut body = c.chunk(b"hello");
            body.truncate(body.len() - 4);
            body
        }),
        bent("fewer bytes than announced", Some("6"), 400, SHORT, &good),
        bent("more bytes than announced", Some("4"), 400, INVALID, &good),
        bent("no length announced", None, 411, "MissingContentLength", &good),
        bent("a negative length", Some("-5"), 400, "InvalidArgument", &good),
        bent("a length that is a word", Some("five"), 400, "InvalidArgument", &good),
        bent("a length beyond 64 bits", Some("99999999999999999999"), 400, "InvalidArgument", &good),
        bent("more than 5 GiB announced", Some("5368709121"), 400, "EntityTooLarge", &good),
        bent("a chunk of 16 EiB", Some("5"), 400, INVALID, &|_| {
            format!("ffffffffffffffff;chunk-signature={}\r\nhello\r\n", "0".repeat(64)).into_bytes()
        }),
        bent("a chunk of 5 GiB", Some("5"), 400, INVALID, &|_| {
            format!("140000000;chunk-signature={}\r\nhello\r\n", "0".repeat(64)).into_bytes()
        }),
        bent("a size of 17 digits", Some("5"), 400, INVALID, &|_| {
            b"00000000000000005;chunk-signature=0\r\nhello\r\n".to_vec()
        }),
        bent("a negative size", Some("5"), 400, INVALID, &|_| b"-5;chunk-signature=0\r\nhello\r\n".to_vec()),
        bent("a size that is a word", Some("5"), 400, INVALID, &|_| b"five;chunk-signature=0\r\nhello\r\n".to_vec()),
        bent("no size", Some("5"), 400, INVALID, &|_| b";chunk-signature=0\r\nhello\r\n".to_vec()),
        bent("an endless size line", Some("5"), 400, INVALID, &|_| vec![b'0'; 1 << 20]),
        bent("lines without CR", Some("5"), 400, INVALID, &|c| replaced(good(c), "\r\n", "\n")),
        bent("a chunk longer than its size", Some("5"), 400, INVALID, &|c| replaced(good(c), "hello", "hello you")),
        bent("bytes after the end", Some("5"), 400, INVALID, &|c| [good(c), b"more".to_vec()].concat()),
        bent("nothing at all", Some("5"), 400, SHORT, &|_| Vec::new()),
        bent("no framing", Some("5"), 400, INVALID, &|_| b"hello\r\n".to_vec()),
        bent("a trailer nobody announced", Some("5"), 400, INVALID, &|c| {
            [c.chunk(b"hello"), c.chunk(b""), format!("{CRC32}\r\n\r\n").into_bytes()].concat()
        }),
    ]
}

fn trailers(w: &World) -> Vec<Case> {
    let announce = |name: &str| put(w, "trailers").header("x-amz-trailer", name);
    let crc32 = || announce("x-amz-checksum-crc32");
    let unsigned = |name: &str, trailer: &str, status, code| {
        let body = format!("5\r\nhello\r\n0\r\n{trailer}\r\n").into_bytes();
        case(&format!("unsigned trailer: {name}"), crc32().stream(UNSIGNED_TRAILER, Some("5"), |_| body), status, code)
    };
    let signed = |name: &str, status, code, frame: &dyn Fn(&mut ChunkChain) -> Vec<u8>| {
        let request =
            crc32().stream(SIGNED_TRAILER, Some("5"), |c| [c.chunk(b"hello"), c.chunk(b""), frame(c)].concat());
        case(&format!("signed trailer: {name}"), request, status, code)
    };
    let plain = |_: &mut ChunkChain| format!("5\r\nhello\r\n0\r\n{CRC32}\r\n\r\n").into_bytes();
    vec![
        unsigned("as it should be", &format!("{CRC32}\r\n"), 200, ""),
        unsigned("missing", "", 400, INVALID),
        unsigned("of another value", "x-amz-checksum-crc32:NhCmhw==\r\n", 400, "BadDigest"),
        unsigned("not base64", "x-amz-checksum-crc32:%%%\r\n", 400, INVALID),
        unsigned("of another length", "x-amz-checksum-crc32:AAAA\r\n", 400, INVALID),
        unsigned("of another name", "x-amz-checksum-sha1:NhCmhg==\r\n", 400, INVALID),
        unsigned("twice", &format!("{CRC32}\r\n{CRC32}\r\n"), 400, INVALID),
        unsigned("with metadata", &format!("{CRC32}\r\nx-amz-meta-a:b\r\n"), 400, INVALID),
        unsigned("without a colon", "x-amz-checksum-crc32\r\n", 400, INVALID),
        unsigned("of 64 KiB", &format!("x-amz-checksum-crc32:{}\r\n", "A".repeat(64 << 10)), 400, INVALID),
        signed("as it should be", 200, "", &|c| c.trailers(&[CRC32])),
        signed("without a signature", 400, INVALID, &|_| b"\r\n".to_vec()),
        signed("with a value changed", 403, MISMATCH, &|c| replaced(c.trailers(&[CRC32]), "NhCm", "NhCn")),
        signed("with its signature changed", 403, MISMATCH, &|c| {
            replaced(c.trailers(&[CRC32]), "signature:", "signature:0")
        }),
        signed("with its signature missing", 403, MISMATCH, &|_| format!("{CRC32}\r\n\r\n").into_bytes()),
        signed("signed, of another value", 400, "BadDigest", &|c| c.trailers(&["x-amz-checksum-crc32:NhCmhw=="])),
        case(
            "a trailer of no known kind announced",
            announce("x-amz-meta-a").stream(UNSIGNED_TRAILER, Some("5"), plain),
            400,
            INVALID,
        ),
        case(
            "two trailers announced",
            announce("x-amz-checksum-crc32,x-amz-checksum-sha1").stream(UNSIGNED_TRAILER, Some("5"), plain),
            400,
            INVALID,
        ),
        case(
            "a trailer and a header",
            crc32().header("x-amz-checksum-crc32", "NhCmhg==").stream(UNSIGNED_TRAILER, Some("5"), plain),
            400,
            INVALID,
        ),
        case(
            "a trailer of another algorithm",
            crc32().header("x-amz-sdk-checksum-algorithm", "SHA1").stream(UNSIGNED_TRAILER, Some("5"), plain),
            400,
            INVALID,
        ),
        case("a trailer announced, and no trailers", crc32().stream(SIGNED, Some("5"), good), 400, INVALID),
        case("a trailer announced for a plain body", crc32().body("hello").sign(), 400, INVALID),
        case("trailers not announced", put(w, "x").stream(UNSIGNED_TRAILER, Some("5"), plain), 400, INVALID),
        case("a signed mode without signatures", crc32().stream(SIGNED_TRAILER, Some("5"), plain), 400, INVALID),
    ]
}

fn lengths(w: &World) -> Vec<Case> {
    let unsigned = |length: Option<&str>| put(w, "length").payload("UNSIGNED-PAYLOAD").length(length);
    let framed = |headers: &str, body: &str| {
        let head = unsigned(None).sign();
        let text = String::from_utf8(head).expect("text");
        format!("{}{headers}\r\n{body}", text.strip_suffix("\r\n").expect("an end"))
    };
    vec![
        case("no length", unsigned(None).sign(), 411, "MissingContentLength"),
        case(
            "no length for a part",
            w.ask("PUT", &format!("/hostile/parts?partNumber=1&uploadId={}", w.upload)).sign(),
            411,
            "MissingContentLength",
        ),
        case("a negative length", unsigned(Some("-1")).sign(), 400, "BadRequest"),
        case("a length that is a word", unsigned(Some("many")).sign(), 400, "BadRequest"),
        case("a length with a sign", unsigned(Some("+5")).sign(), 400, "BadRequest"),
        case("a length in hexadecimal", unsigned(Some("0x5")).sign(), 400, "BadRequest"),
        case("an empty length", unsigned(Some("")).sign(), 400, "BadRequest"),
        case("a length beyond 64 bits", unsigned(Some("99999999999999999999999")).sign(), 400, "BadRequest"),
        case(
            "two lengths that differ",
            framed("content-length: 5\r\ncontent-length: 6\r\n", "hello"),
            400,
            "BadRequest",
        ),
        case("a list of lengths", unsigned(Some("5, 6")).sign(), 400, "BadRequest"),
        case("5 GiB and one byte", unsigned(Some("5368709121")).sign(), 400, "EntityTooLarge"),
        case("8 EiB", unsigned(Some("9223372036854775807")).sign(), 400, "EntityTooLarge"),
        case(
            "5 GiB and one byte in a part",
            w.ask("PUT", &format!("/hostile/parts?partNumber=1&uploadId={}", w.upload))
                .payload("UNSIGNED-PAYLOAD")
                .length(Some("5368709121"))
                .sign(),
            400,
            "EntityTooLarge",
        ),
        case("an encoding nobody knows", framed("transfer-encoding: gzip\r\n", ""), 400, "BadRequest"),
        case("chunked, not at the end", framed("transfer-encoding: chunked, gzip\r\n", ""), 400, "BadRequest"),
        case(
            "HTTP chunks without sizes",
            framed("transfer-encoding: chunked\r\n", "zz\r\nhello\r\n0\r\n\r\n"),
            400,
            SHORT,
        ),
        case(
            "an HTTP chunk of 16 EiB",
            framed("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            400,
            SHORT,
        ),
        case(
            "a length and chunks",
            framed("content-length: 3\r\ntransfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            200,
            "",
        ),
        case(
            "a document of 9 MiB",
            w.ask("POST", "/hostile?delete").payload("UNSIGNED-PAYLOAD").length(Some("9437184")).sign(),
            400,
            "MaxMessageLengthExceeded",
        ),
        case(
            "a body for a read",
            w.ask("GET", "/hostile/small").payload("UNSIGNED-PAYLOAD").length(Some("99999999")).sign(),
            400,
            "MaxMessageLengthExceeded",
        ),
    ]
}

fn digests(w: &World) -> Vec<Case> {
    let hello = || put(w, "digest").body("hello");
    vec![
        case(
            "a payload hash of something else",
            hello().payload(&"0".repeat(64)).sign(),
            400,
            "XAmzContentSHA256Mismatch",
        ),
        case(
            "a document hash of something else",
            w.ask("POST", "/hostile?delete").body("<Delete/>").payload(&"0".repeat(64)).sign(),
            400,
            "XAmzContentSHA256Mismatch",
        ),
        case(
            "an MD5 of something else",
            hello().header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==").sign(),
            400,
            "BadDigest",
        ),
        case("an MD5 of three bytes", hello().header("content-md5", "AAAA").sign(), 400, "InvalidDigest"),
        case("an MD5 that is not base64", hello().header("content-md5", "*").sign(), 400, "InvalidDigest"),
        case(
            "an MD5 of another document",
            w.ask("POST", "/hostile?delete")
                .body("<Delete><Object><Key>x</Key></Object></Delete>")
                .header("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")
                .sign(),
            400,
            "BadDigest",
        ),
        case(
            "a CRC of another document",
            w.ask("POST", "/hostile?delete")
                .body("<Delete><Object><Key>x</Key></Object></Delete>")
                .header("x-amz-checksum-crc32", "AAAAAA==")
                .sign(),
            400,
            "BadDigest",
        ),
        case("a CRC of something else", hello().header("x-amz-checksum-crc32", "AAAAAA==").sign(), 400, "BadDigest"),
        case("a CRC of three bytes", hello().header("x-amz-checksum-crc32c", "AAAA").sign(), 400, INVALID),
        case(
            "a SHA-256 of something else",
            hello().header("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").sign(),
            400,
            "BadDigest",
        ),
        case(
            "two checksums",
            hello()
                .header("x-amz-checksum-crc32", "NhCmhg==")
                .header("x-amz-checksum-sha1", "qvTGHdzF6KLavt4PO0gs2a6pQ00=")
                .sign(),
            400,
            INVALID,
        ),
        case(
            "a checksum of another algorithm than named",
            hello().header("x-amz-checksum-crc32", "NhCmhg==").header("x-amz-sdk-checksum-algorithm", "SHA1").sign(),
            400,
            INVALID,
        ),
        case("an algorithm nobody knows", hello().header("x-amz-sdk-checksum-algorithm", "MD4").sign(), 400, INVALID),
    ]
}
