//! Objects whose size and bytes follow from a number: put, and read back byte by byte, through the SDK.

use crate::content::bytes_of;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;

/// Kept in the metadata alone; a shard of one cell; some cells; whole stripes; several and a bit.
const SIZES: [usize; 5] = [100, 20_000, 300_000, 1 << 20, 3_000_000];

/// Bytes of object number `seed`.
pub fn size_of(seed: u64) -> usize {
    SIZES[usize::try_from(seed % 5).expect("below five")]
}

/// Puts object number `seed` under a key.
///
/// # Errors
/// What the SDK says, in full.
pub async fn put(client: &Client, bucket: &str, key: &str, seed: u64) -> Result<(), String> {
    let body = ByteStream::from(bytes_of(seed, size_of(seed)));
    let sent = client.put_object().bucket(bucket).key(key).body(body).send().await;
    sent.map(|_| ()).map_err(|error| format!("put {key}: {error:?}"))
}

/// Reads a key and compares it with object number `seed`.
///
/// # Errors
/// What the SDK says, in full, or that there are other bytes.
pub async fn check(client: &Client, bucket: &str, key: &str, seed: u64) -> Result<(), String> {
    let of = || format!("{key} of {} bytes", size_of(seed));
    let found = client.get_object().bucket(bucket).key(key).send().await;
    let found = found.map_err(|error| format!("get {}: {error:?}", of()))?;
    let body = found.body.collect().await.map_err(|error| format!("read {}: {error:?}", of()))?;
    match body.into_bytes() == bytes_of(seed, size_of(seed)) {
        true => Ok(()),
        false => Err(format!("{} has other bytes", of())),
    }
}
