//! One hostile request and the answer it must get, and the world it is sent into.

use holdfast_tests::server::{ACCESS_KEY, SECRET_KEY, Server, raw_request};
use holdfast_tests::signing::{Probe, Signer};
use std::time::{Duration, Instant};

/// Longest any answer may take: no case waits for a time limit of the server, but test machines are busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(9);
/// What is in the other owner's bucket; seen in any answer, it leaked.
pub(crate) const SECRET: &str = "the-vault-holds-this-and-nobody-else-sees-it";
/// What the attacker's own object holds.
pub(crate) const SMALL: &str = "hello world";

/// A request, and its answer: status 0 for a connection closed without one, an empty code for any.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) request: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
}

/// One line of a table.
pub(crate) fn case(name: &str, request: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Case {
    Case { name: name.to_owned(), request: request.into(), status, code }
}

/// An answer taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let id = head.lines().find_map(|line| line.strip_prefix("x-amz-request-id: ").map(str::to_owned));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, request_id: id.filter(|id| !id.is_empty()), body: body.to_owned() }
    }

    /// What is between `<Code>` and `</Code>`.
    pub(crate) fn code(&self) -> &str {
        self.tag("Code").unwrap_or_default()
    }

    /// What is in the first element of this name.
    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    }
}

/// A server with an attacker's bucket and somebody else's.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) host: String,
    pub(crate) root: Signer,
    pub(crate) mallory: Signer,
    /// An upload the attacker has begun, to `hostile/parts`.
    pub(crate) upload: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let server = Server::start();
        let (name, secret) = ("mallory-access-key", "mallory-secret-key-0123456789");
        let made = server.cli(&["key", "create", "--name", "mallory", "--access-key", name, "--secret-key", secret]);
        assert!(made.status.success(), "{}", holdfast_tests::server::describe(&made));
        let host = server.s3.to_string();
        let root = Signer::new(ACCESS_KEY, SECRET_KEY);
        let mut world = Self { server, host, root, mallory: Signer::new(name, secret), upload: String::new() };
        for request in [
            world.vault("PUT", "/vault").sign(),
            world.vault("PUT", "/vault/secret").body(SECRET).sign(),
            world.ask("PUT", "/hostile").sign(),
            world.ask("PUT", "/hostile/small").body(SMALL).sign(),
        ] {
            let answer = world.send(&request).expect("an answer");
            assert_eq!(answer.status, 200, "{}: {answer:?}", String::from_utf8_lossy(&request));
        }
        let begun = world.send(&world.ask("POST", "/hostile/parts?uploads").sign()).expect("an answer");
        world.upload = begun.tag("UploadId").expect("an upload id").to_owned();
        world
    }

    /// A request of the attacker's.
    pub(crate) fn ask(&self, method: &str, target: &str) -> Probe {
        Probe::new(&self.mallory, &self.host, method, target)
    }

    /// A request of the vault's owner.
    pub(crate) fn vault(&self, method: &str, target: &str) -> Probe {
        Probe::new(&self.root, &self.host, method, target)
    }

    /// The answer, `None` when there is none.
    pub(crate) fn send(&self, request: &[u8]) -> Option<Answer> {
        raw_request(self.server.s3, request).map(|bytes| Answer::parse(&bytes))
    }

    /// Sends a case; what is wrong with its answer, if anything is.
    pub(crate) fn check(&self, case: &Case) -> Result<(), String> {
        let started = Instant::now();
        let answer = self.send(&case.request);
        let took = started.elapsed();
        let wrong = |what: String| Err(format!("{}: {what}", case.name));
        if took > ANSWER_LIMIT {
            return wrong(format!("took {took:?}"));
        }
        let Some(answer) = answer else {
            return if case.status == 0 { Ok(()) } else { wrong("no answer".to_owned()) };
        };
        if answer.body.contains(SECRET) {
            return wrong(format!("leaked the vault: {answer:?}"));
        }
        if answer.status != case.status || !case.code.is_empty() && answer.code() != case.code {
            return wrong(format!("expected {} {}, got {answer:?}", case.status, case.code));
        }
        if answer.request_id.is_none() {
            return wrong(format!("no request id: {answer:?}"));
        }
        Ok(())
    }
}
