//! The kinds of faults, each with its name, the layer that carries it out, and what its amount means.

use std::fmt;
use std::str::FromStr;

/// Who carries a fault out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The calls a node makes to others.
    Link,
    /// The backends of a node.
    Disk,
    /// A node's clock.
    Clock,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $layer:ident, $least:literal ..= $most:literal, $default:literal;)*) => {
        /// What goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind { $($(#[doc = $doc])* $name,)* }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, on the command line and between nodes.
            pub fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }

            /// Who carries it out.
            pub fn layer(self) -> Layer { match self { $(Self::$name => Layer::$layer,)* } }

            /// Least and largest amount; both 0 for a kind that has none. `amount_unit` says what of.
            pub fn amounts(self) -> (i64, i64) { match self { $(Self::$name => ($least, $most),)* } }

            /// Whether it happens now and then, by percentage; else it holds all the time.
            pub fn has_chance(self) -> bool { match self { $(Self::$name => $default,)* } }
        }

        impl FromStr for FaultKind {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text { $($text => Ok(Self::$name),)* _ => Err(unknown(text)) }
            }
        }
    };
}

// Times in milliseconds: up to a minute, beyond which every deadline of the store has passed. A clock jumps by up to a
// year either way. A bandwidth below 1 KiB/s is a partition.
kinds! {
    /// Calls wait before they go out.
    Delay = "delay", Link, 1 ..= 60_000, true;
    /// Calls fail at once, as if the connection had broken.
    Error = "error", Link, 0 ..= 0, true;
    /// Calls are never answered: they end at their deadline.
    Drop = "drop", Link, 0 ..= 0, true;
    /// Calls and what follows in them go out no faster than so many bytes a second.
    Bandwidth = "bandwidth", Link, 1_024 ..= 1_000_000_000_000, false;
    /// No call gets through in this direction, nor what follows in calls that were begun.
    Partition = "partition", Link, 0 ..= 0, false;
    /// Reads and writes wait.
    DiskDelay = "disk-delay", Disk, 1 ..= 60_000, true;
    /// Reads and writes fail with an IO error.
    DiskError = "disk-error", Disk, 0 ..= 0, true;
    /// There is no room for a new shard.
    DiskFull = "disk-full", Disk, 0 ..= 0, true;
    /// A bit of what is written is flipped on its way to the disk, for good.
    BitFlip = "bit-flip", Disk, 0 ..= 0, true;
    /// A sync fails; from then on the backend is read-only until its server starts again.
    FsyncError = "fsync-error", Disk, 0 ..= 0, true;
    /// The clock is wrong by so much.
    ClockJump = "clock-jump", Clock, -31_536_000_000 ..= 31_536_000_000, false;
}

impl FaultKind {
    /// What its amount counts; empty if it has none.
    pub fn amount_unit(self) -> &'static str {
        match self {
            Self::Delay | Self::DiskDelay | Self::ClockJump => "ms",
            Self::Bandwidth => "bytes/s",
            _ => "",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn unknown(text: &str) -> String {
    let names: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
    format!("there is no fault {text:?}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_amounts_make_sense() {
        for &kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            let (least, most) = kind.amounts();
            assert!(least <= most, "{kind}");
            assert_eq!((least, most) == (0, 0), kind.amount_unit().is_empty(), "{kind}");
        }
        assert!("flood".parse::<FaultKind>().unwrap_err().contains("partition"));
    }
}
