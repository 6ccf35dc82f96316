//! What clients ask of a coordinator, as the S3 operations carry it out: the bucket resolved, conditions handed on, bytes
//! streamed both ways and held against what was written.

use crate::bug::Bug;
use crate::content::{Written, body};
use crate::linearizability::{Operation, Value};
use crate::node::Parts;
use crate::world::World;
use bytes::Bytes;
use futures::StreamExt;
use holdfast_coordinator::metadata::{
    DeleteVersion, EtagCondition, ListRequest, MetadataError, Preconditions, VersionSelector,
};
use holdfast_coordinator::object_path::{BodyStream, ChecksumExpectation, ObjectError, PutRequest, ReadRequest};
use holdfast_proto::manifest::{Attributes, Bucket, ObjectVersion, Pair, Versioning};
use holdfast_proto::{BucketId, ErrorKind, VersionId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The one bucket.
pub const BUCKET: &str = "simulated";
/// The user metadata that says which write a version is of: empty objects are all alike otherwise.
const VALUE_NAME: &str = "value";
/// Bytes of a client's network packets.
const PACKET_BYTES: usize = 16 << 10;
/// How long a stale answer is given, by a coordinator with that bug.
const STALE_FOR: Duration = Duration::from_secs(8);
/// Keys of a page of a listing.
const PAGE_KEYS: usize = 5;

/// Only with a bug: what a coordinator read of each key, and when.
pub type Remembered = BTreeMap<String, (Instant, Option<Value>)>;

/// How a request ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Carried out; of a write, what it made.
    Done(Option<Box<ObjectVersion>>),
    /// Its condition did not hold.
    Refused,
    /// What a read found: which write it is of.
    Found(Option<Value>),
    /// Certainly without effect.
    Failed(String),
    /// It may have been carried out.
    Unknown(String),
}

/// Requests through one coordinator.
pub struct Requests {
    /// The coordinator.
    pub parts: Parts,
    /// The world.
    pub world: Arc<World>,
    /// What was ever sent.
    pub written: Arc<Written>,
    /// What is wrong with the coordinator.
    pub bug: Option<Bug>,
    /// Only with a bug: what was read, and when.
    pub remembered: Arc<Mutex<Remembered>>,
}

impl Requests {
    /// Carries out what `operation` says on `key`.
    pub async fn perform(&self, key: &str, operation: Operation) -> Outcome {
        match operation {
            Operation::Put(value) => self.put(key, value, Preconditions::default()).await,
            Operation::PutIfAbsent(value) => {
                let conditions = Preconditions { if_none_match: Some(EtagCondition::Any), ..Preconditions::default() };
                self.put(key, value, conditions).await
            }
            Operation::PutIfMatch { expected, value } => {
                let expected = EtagCondition::OneOf(vec![self.written.etag(expected)]);
                self.put(key, value, Preconditions { if_match: Some(expected), ..Preconditions::default() }).await
            }
            Operation::Delete => self.delete(key).await,
            Operation::Get => self.get(key).await,
        }
    }

    async fn bucket(&self) -> Result<Bucket, Outcome> {
        match self.parts.metadata.find_bucket(BUCKET).await {
            Ok(Some(bucket)) => Ok(bucket),
            Ok(None) => {
                self.world.violation(format_args!("the bucket is not known any more"));
                Err(Outcome::Failed("no such bucket".to_owned()))
            }
            Err(error) => Err(Outcome::Failed(error.to_string())),
        }
    }

    async fn put(&self, key: &str, value: Value, preconditions: Preconditions) -> Outcome {
        let bucket = match self.bucket().await {
            Ok(bucket) => bucket,
            Err(outcome) => return outcome,
        };
        let bytes = body(value, self.written.length(value));
        let preconditions = match self.bug {
            Some(Bug::ConditionsAreIgnored) => Preconditions::default(),
            _ => preconditions,
        };
        let request = || PutRequest {
            bucket: bucket.clone(),
            key: key.to_owned(),
            attributes: Attributes {
                user_metadata: vec![Pair { name: VALUE_NAME.to_owned(), value: value.to_string() }],
                ..Attributes::default()
            },
            owner: String::new(),
            object_bytes: Some(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            object_bytes_max: None,
            expect: ChecksumExpectation::default(),
            preconditions: preconditions.clone(),
        };
        let objects = self.parts.objects.clone();
        match self.bug {
            Some(Bug::AcknowledgedBeforeOrdered) => {
                let (request, stream) = (request(), packets(bytes));
                tokio::spawn(async move { objects.put(request, stream).await });
                return Outcome::Done(None);
            }
            Some(Bug::WritesAreRepeated) if self.world.chance(20) => {
                let (request, stream, again) = (request(), packets(bytes.clone()), objects.clone());
                let wait = self.world.between(Duration::from_secs(1), Duration::from_secs(9));
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    again.put(request, stream).await
                });
            }
            _ => {}
        }
        match objects.put(request(), packets(bytes.clone())).await {
            Ok(outcome) => Outcome::Done(Some(Box::new(outcome.version))),
            Err(error) => of_error(&error),
        }
    }

    async fn delete(&self, key: &str) -> Outcome {
        let bucket = match self.bucket().await {
            Ok(bucket) => bucket,
            Err(outcome) => return outcome,
        };
        let delete = DeleteVersion {
            bucket: BucketId(bucket.id),
            key: key.to_owned(),
            selector: VersionSelector::Current,
            versioning: Versioning::Unversioned,
            marker: VersionId::default(),
            now_ms: self.world.now_ms(),
            owner: String::new(),
            preconditions: Preconditions::default(),
        };
        match self.parts.metadata.delete_version(delete).await {
            Ok(_) => Outcome::Done(None),
            Err(error) => of_error(&error.into()),
        }
    }

    async fn get(&self, key: &str) -> Outcome {
        if self.bug == Some(Bug::ReadsAreStale)
            && let Some((at, value)) = self.remembered.lock().get(key)
            && at.elapsed() < STALE_FOR
        {
            return Outcome::Found(*value);
        }
        let bucket = match self.bucket().await {
            Ok(bucket) => bucket,
            Err(outcome) => return outcome,
        };
        let found = self.parts.metadata.get_version(BucketId(bucket.id), key, VersionSelector::Current).await;
        let version = match found {
            Ok(version) => version,
            Err(error) => return of_error(&error.into()),
        };
        let value = version.as_ref().and_then(|version| self.value(key, version));
        self.remembered.lock().insert(key.to_owned(), (Instant::now(), value));
        if let (Some(version), Some(value)) = (version, value) {
            self.read(key, version, value).await;
        }
        Outcome::Found(value)
    }

    /// Which write a version is of; one that was never sent is a violation.
    fn value(&self, key: &str, version: &ObjectVersion) -> Option<Value> {
        let attributes = version.attributes.clone().unwrap_or_default();
        let named = attributes.user_metadata.iter().find(|pair| pair.name == VALUE_NAME);
        let value = named.and_then(|pair| pair.value.parse().ok()).filter(|&value| self.written.has(value));
        let is_right = value.is_some_and(|value| {
            version.etag == self.written.etag(value) && version.object_bytes == self.written.length(value)
        });
        if !is_right {
            self.world.violation(format_args!("{key}: a version that nobody wrote: etag {}", version.etag));
        }
        value
    }

    /// Reads the bytes. An error ends them early; a wrong byte is a violation.
    async fn read(&self, key: &str, version: ObjectVersion, value: Value) {
        let range = 0..version.object_bytes;
        let mut stream = self.parts.objects.read(ReadRequest { version: Arc::new(version), range: range.clone() });
        let expected = body(value, range.end);
        let mut at = 0;
        while let Some(item) = stream.next().await {
            let Ok(bytes) = item else { return };
            if expected.get(at..at + bytes.len()) != Some(&bytes[..]) {
                self.world.violation(format_args!("{key}: wrong bytes of write {value} after byte {at}"));
                return;
            }
            at += bytes.len();
        }
        if at != expected.len() {
            let length = expected.len();
            self.world.violation(format_args!("{key}: write {value} ended without an error after {at} of {length}"));
        }
    }

    /// All keys with which write each is of, or the reason why not; empty objects, which are all alike, without one.
    pub async fn list(&self, prefix: &str) -> Result<BTreeMap<String, Option<Value>>, String> {
        let bucket = self.bucket().await.map_err(|outcome| format!("{outcome:?}"))?;
        let mut found = BTreeMap::new();
        let mut after = String::new();
        loop {
            let request = ListRequest {
                prefix: prefix.to_owned(),
                delimiter: String::new(),
                after: after.clone(),
                limit: PAGE_KEYS,
            };
            let page = self.parts.metadata.list(BucketId(bucket.id), request).await.map_err(|e| e.to_string())?;
            for entry in page.entries {
                if entry.key <= after {
                    self.world.violation(format_args!("a listing after {after} gives {}", entry.key));
                    return Err("not in order".to_owned());
                }
                after.clone_from(&entry.key);
                let value = self.written.of_etag(&entry.etag);
                if value.is_none() && entry.object_bytes > 0 {
                    self.world.violation(format_args!("{} is listed with an etag that nobody wrote", entry.key));
                }
                found.insert(entry.key, value);
            }
            match page.next_after {
                Some(next) => after = next,
                None => break,
            }
        }
        if self.bug == Some(Bug::ListingsEndEarly) {
            found.pop_last();
        }
        Ok(found)
    }
}

/// What an error says of a request's effect.
fn of_error(error: &ObjectError) -> Outcome {
    match error {
        ObjectError::Metadata(MetadataError::PreconditionFailed { .. } | MetadataError::NoSuchKey) => Outcome::Refused,
        ObjectError::Metadata(cause) if cause.kind() == ErrorKind::Retry => Outcome::Unknown(cause.to_string()),
        ObjectError::Internal { reason } => Outcome::Unknown(reason.clone()),
        other => Outcome::Failed(other.to_string()),
    }
}

fn packets(bytes: Bytes) -> BodyStream {
    let count = bytes.len().div_ceil(PACKET_BYTES);
    let packet = move |at: usize| {
        let begin = at * PACKET_BYTES;
        Ok(bytes.slice(begin..(begin + PACKET_BYTES).min(bytes.len())))
    };
    futures::stream::iter((0..count).map(packet)).boxed()
}
