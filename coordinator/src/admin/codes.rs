//! Every code an operator can meet in an error of Holdfast, with one sentence each: the one table behind messages,
//! documentation and runbooks.
//!
//! Invariant: codes are unique and never get another meaning. The thousands say where: 1 command line, start and
//! administration requests; 2 backends; 3 repair and scrub; 4 buckets, objects and keys; 5 metadata; 9 faults of
//! the program.

use std::fmt;

macro_rules! codes {
    ($($name:ident $code:literal $meaning:literal;)*) => {
        /// A code with one meaning for ever.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)*
        }
        impl Code {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// `HFnnnn`.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
            /// One sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

codes! {
    UnknownSetting "HF1001" "A setting of this name does not exist.";
    InvalidSetting "HF1002" "A setting has a value that cannot be used.";
    UnreadableSettings "HF1003" "The settings file cannot be read or is not TOML.";
    InvalidArgument "HF1004" "An argument on the command line cannot be used.";
    DataDirectoryInUse "HF1101" "Another server holds the data directory.";
    DataDirectoryUnusable "HF1102" "The data directory cannot be created, locked or written.";
    CannotListen "HF1103" "A listening address cannot be bound.";
    UnusableCredentials "HF1104" "The root key given or stored cannot be used.";
    TooFewBackends "HF1105" "The scheme needs more backends than are configured.";
    BackendsDiffer "HF1106" "The backends on the command line are not those of this store.";
    SchemeDiffers "HF1107" "The scheme on the command line is not that of this store.";
    FirstStartFailed "HF1108" "The first start could not format a backend or write the first cluster map.";
    StartFailed "HF1109" "A part of the server could not be started.";
    UnusableCertificate "HF1110" "The TLS certificate or its key cannot be used.";
    DataDirectoryMismatch "HF1111" "The parts of the data directory are not of one node, or one of them is gone.";
    Unreachable "HF1201" "The server did not answer.";
    WrongSignature "HF1202" "The administration request is unsigned, wrongly signed or names an unknown key.";
    ClockSkew "HF1203" "The clocks of client and server differ by more than the signature allows.";
    NotRoot "HF1204" "The key is valid but may not administer.";
    MalformedRequest "HF1205" "The administration request cannot be understood.";
    NoSuchEndpoint "HF1206" "The administration port has no such endpoint: client and server may differ in version.";
    NoCredentials "HF1207" "No root key was given.";
    TimedOut "HF1208" "The server did not answer in time; the outcome of a change is unknown.";
    UnexpectedAnswer "HF1209" "Something that is not a Holdfast administration port answered.";
    TooLarge "HF1210" "The administration request is larger than any valid one.";
    NoLeader "HF1211" "No coordinator can answer just now: none leads, or the one that does was not reached.";
    JoinRefused "HF1301" "The node cannot join the cluster.";
    MembershipRefused "HF1302" "The cluster's membership does not allow this, or the server belongs to no cluster.";
    NoSuchToken "HF1303" "No join token has this id.";
    NoSuchNode "HF1304" "No node of the cluster has this name or number.";
    NodeRefused "HF1305" "The node cannot be drained, removed or replaced as things are.";
    FaultRefused "HF1401" "A fault cannot be injected as asked, or a server was not started for faults.";
    NoSuchFault "HF1402" "No fault of this id stands.";
    NoSuchBackend "HF2101" "No backend has this name or id.";
    BackendUnusable "HF2102" "The place cannot become a backend: not empty, not writable, or already one.";
    BackendRefused "HF2103" "The change would leave shards without a place of their own.";
    BackendNotDrained "HF2104" "The backend still holds shards that are nowhere else.";
    BackendExists "HF2105" "A backend of this name or place exists.";
    BackendFull "HF2106" "A backend has no room left above its reserve.";
    BackendOffline "HF2107" "A backend is missing, wiped, foreign or failed.";
    RepairRefused "HF3101" "Repair cannot do this now.";
    ScrubRefused "HF3201" "A scrub cannot do this now.";
    PromiseRefused "HF3301" "The promise would not hold; the message names the scenario that fails.";
    PlanStale "HF3302" "The layout has changed since the plan was made.";
    MovesRefused "HF3303" "Moves cannot be applied or taken back as things are.";
    NoSuchBucket "HF4101" "No bucket has this name.";
    BucketExists "HF4102" "A bucket of this name exists.";
    BucketNotEmpty "HF4103" "The bucket still holds objects, versions or uploads.";
    InvalidBucketName "HF4104" "The name is not a valid bucket name.";
    NoSuchObject "HF4201" "The bucket has no such object or version.";
    NoSuchAccessKey "HF4301" "No access key has this name.";
    AccessKeyExists "HF4302" "An access key of this name exists.";
    InvalidAccessKey "HF4303" "The access key or secret cannot be used.";
    RootKeyStays "HF4304" "The root key cannot be removed.";
    MetadataUnavailable "HF5101" "The metadata did not answer; the outcome of a change is unknown.";
    StaleEpoch "HF5102" "Somebody else changed the cluster map first.";
    MetadataFull "HF5103" "The metadata's file system has no room for more; nothing was changed.";
    Internal "HF9001" "A fault of the machine or of this program; the server's log says more.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_ascending_and_explained() {
        let texts: Vec<_> = Code::ALL.iter().map(|c| c.text()).collect();
        let sorted: Vec<_> = texts.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(texts, sorted);
        for code in Code::ALL {
            let digits = code.text().strip_prefix("HF").unwrap();
            assert!(digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()), "{code}");
            assert!(code.meaning().ends_with('.'), "{code}");
        }
    }
}
