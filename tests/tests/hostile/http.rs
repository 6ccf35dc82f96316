//! HTTP itself: garbage, methods, versions, headers too many and too large, pipelines.

use super::case::{Case, World, case};

const BAD: &str = "BadRequest";
const LARGE: &str = "RequestHeaderSectionTooLarge";

pub(crate) fn cases(w: &World) -> Vec<Case> {
    let get = || w.ask("GET", "/hostile/small");
    let line = |line: &str| format!("{line}\r\nhost: {}\r\nconnection: close\r\n\r\n", w.host);
    let headers = |headers: &str| format!("GET / HTTP/1.1\r\nhost: {}\r\n{headers}connection: close\r\n\r\n", w.host);
    let many: String = (0..200).map(|i| format!("x-junk-{i}: a\r\n")).collect();
    let large = format!("x-junk: {}\r\n", "a".repeat(100 << 10));
    let huge = format!("x-junk: {}\r\n", "a".repeat(1 << 20));
    let then_rubbish = [get().sign(), b"rubbish\r\n\r\n".to_vec()].concat();
    vec![
        case("rubbish", "rubbish\r\n\r\n", 400, BAD),
        case("zero bytes", vec![0u8; 4096], 400, BAD),
        case("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400, BAD),
        case("an SSH greeting", "SSH-2.0-OpenSSH_9.6\r\n\r\n", 400, BAD),
        case("HTTP/0.9", "GET /hostile/small\r\n\r\n", 400, BAD),
        case("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, ""),
        case("HTTP/3.0", line("GET / HTTP/3.0"), 400, BAD),
        case("HTTP/1.1 in small letters", line("GET / http/1.1"), 400, BAD),
        case("no method", line("/ HTTP/1.1"), 400, BAD),
        case("no target", line("GET HTTP/1.1"), 400, BAD),
        case("a target with spaces", line("GET /a b c HTTP/1.1"), 400, BAD),
        case("a method of control characters", line("G\u{1}T / HTTP/1.1"), 400, BAD),
        case("HTTP/1.0 without a host", "GET /hostile/small HTTP/1.0\r\n\r\n", 400, "InvalidRequest"),
        case("no host", "GET /hostile/small HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "InvalidRequest"),
        case("two hosts", headers("host: other\r\n"), 400, "InvalidRequest"),
        case("TRACE", line("TRACE /hostile/small HTTP/1.1"), 403, "AccessDenied"),
        case("TRACE, signed", w.ask("TRACE", "/hostile/small").sign(), 501, ""),
        case("CONNECT", line("CONNECT vault:443 HTTP/1.1"), 403, "AccessDenied"),
        case("OPTIONS", line("OPTIONS /hostile/small HTTP/1.1"), 403, "AccessForbidden"),
        case("OPTIONS of everything", line("OPTIONS * HTTP/1.1"), 403, "AccessForbidden"),
        case("a method nobody knows", line("BREW /hostile/small HTTP/1.1"), 403, "AccessDenied"),
        case("a method nobody knows, signed", w.ask("BREW", "/hostile/small").sign(), 501, ""),
        case("PATCH, signed", w.ask("PATCH", "/hostile/small").body("a").sign(), 501, ""),
        case("POST to a key, signed", w.ask("POST", "/hostile/small").body("a").sign(), 501, ""),
        case("a method of 10 KiB", line(&format!("{} / HTTP/1.1", "M".repeat(10 << 10))), 403, "AccessDenied"),
        case(
            "an absolute target elsewhere",
            line("GET http://vault.example/vault/secret HTTP/1.1"),
            403,
            "AccessDenied",
        ),
        case("200 headers", headers(&many), 400, LARGE),
        case("a header of 100 KiB", headers(&large), 400, LARGE),
        case("a header of 1 MiB", headers(&huge), 400, LARGE),
        case("a header without a name", headers(": a\r\n"), 400, BAD),
        case("a header without a colon", headers("junk\r\n"), 400, BAD),
        case("a space before the colon", headers("x-junk : a\r\n"), 400, BAD),
        case("a folded header", headers("x-junk: a\r\n b\r\n"), 400, BAD),
        case("a zero byte in a header", headers("x-junk: a\0b\r\n"), 400, BAD),
        case("a bare CR in a header", headers("x-junk: a\rb\r\n"), 400, BAD),
        case("a target of 100 KiB", line(&format!("GET /{} HTTP/1.1", "k".repeat(100 << 10))), 400, LARGE),
        case("rubbish after a request", then_rubbish, 200, ""),
        case("an expectation nobody knows", get().unsigned("expect", "miracles").sign(), 200, ""),
    ]
}
