//! Objects that say who wrote them: a line of text, then bytes that follow from it. A read is held against its own first
//! line, so one wrong, missing or foreign byte is seen without keeping what was written.
//!
//!     "holdfast client=3 number=17 key=k4 bytes=20000\n" and random bytes of seed (client, number), 20,000 in all

use crate::content::bytes_of;
use md5::{Digest, Md5};

/// Least bytes of a body: its first line fits.
pub const BODY_BYTES_MIN: usize = 128;

/// Which write a body is of. No two writes of one workload have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who wrote.
    pub client: u32,
    /// His how manieth operation.
    pub number: u64,
    /// To which key.
    pub key: String,
    /// How long it is, this line included.
    pub bytes: usize,
}

impl Origin {
    /// The whole body.
    pub fn body(&self) -> Vec<u8> {
        let Self { client, number, key, bytes } = self;
        let mut body = format!("holdfast client={client} number={number} key={key} bytes={bytes}\n").into_bytes();
        assert!(body.len() <= *bytes, "a body of {bytes} bytes is too short for its first line");
        body.extend(bytes_of((u64::from(*client) << 40) | number, bytes - body.len()));
        body
    }

    /// Reads the first line.
    fn parse(body: &[u8]) -> Option<Self> {
        let line = body.get(..body.len().min(BODY_BYTES_MIN * 2))?.split(|&byte| byte == b'\n').next()?;
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        words.next().filter(|word| *word == "holdfast")?;
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        Some(Self {
            client: field("client")?.parse().ok()?,
            number: field("number")?.parse().ok()?,
            key: field("key")?,
            bytes: field("bytes")?.parse().ok()?,
        })
    }
}

/// Whether these are all the bytes of some write to `key`, and no other byte; if not, what is wrong.
pub fn verify_body(key: &str, body: &[u8]) -> Result<Origin, String> {
    let origin = Origin::parse(body).ok_or_else(|| {
        format!("{key}: {} bytes that no client wrote: {:?}", body.len(), body.escape_ascii().to_string().get(..80))
    })?;
    if origin.key != key {
        return Err(format!("{key}: the bytes of another key, {origin:?}"));
    }
    if origin.bytes != body.len() {
        return Err(format!("{key}: {} bytes of {origin:?}", body.len()));
    }
    match origin.body().iter().zip(body).position(|(expected, found)| expected != found) {
        Some(at) => Err(format!("{key}: byte {at} of {origin:?} is wrong")),
        None => Ok(origin),
    }
}

/// The ETag of an object of these bytes, without quotes.
pub fn etag_of(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_by_its_first_line_and_any_wrong_byte_is_seen() {
        for bytes in [BODY_BYTES_MIN, 1_000, 70_000] {
            let origin = Origin { client: 7, number: u64::from(u32::MAX) + 3, key: "list/k12".to_owned(), bytes };
            let body = origin.body();
            assert_eq!(body.len(), bytes);
            assert_eq!(verify_body("list/k12", &body).unwrap(), origin);
            assert!(verify_body("list/k1", &body).unwrap_err().contains("another key"));
            assert!(verify_body("list/k12", &body[..bytes - 1]).is_err(), "cut short");
            assert!(verify_body("list/k12", &[&body[..], b"x"].concat()).is_err(), "too long");
            for at in [0, 10, 40, bytes / 2, bytes - 1] {
                let mut wrong = body.clone();
                wrong[at] ^= 1;
                assert!(verify_body("list/k12", &wrong).is_err(), "a flipped bit at {at} of {bytes}");
            }
        }
        assert!(verify_body("k", b"").is_err());
        assert!(verify_body("k", &[0xff; 300]).is_err());
    }
}
