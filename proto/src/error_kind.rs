//! The one question a shell asks of any error: what can be done about it?

/// What a caller can do about an error. Every border error of every crate answers `kind()` with one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The same call may succeed later (busy, full queue, timeout).
    Retry,
    /// The caller acted on a stale epoch, map or manifest; read it again first.
    Refresh,
    /// A precondition failed or a concurrent change won.
    Conflict,
    /// What was named does not exist.
    NotFound,
    /// The arguments can never succeed.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// Stored bytes failed their check, or too few are left.
    Damaged,
    /// There is no room left.
    Full,
    /// A fault of the machine or of this program.
    Internal,
}
