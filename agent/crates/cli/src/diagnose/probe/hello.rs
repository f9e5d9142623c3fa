//! The first exchange of databases: whether they answer, and whether they would serve.
//!
//! None of it logs in. PostgreSQL and Redis are greeted with a user and a command that need no
//! permission; what they answer, a demand for a password for example, shows that they serve.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use super::super::evidence::{Hello, Silence};
use super::PATIENCE;
use super::deadline::Bounded;
use super::http::silence;

/// More of an answer is not read.
const LONGEST: usize = 2048;

/// A protocol that can be greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Protocol {
    Postgres,
    MySql,
    Redis,
}

/// Greets the server.
pub(super) fn greet(target: SocketAddr, protocol: Protocol) -> Hello {
    let began = Instant::now();
    let result = exchange(target, protocol).unwrap_or_else(|error| Err(silence(&error)));
    Hello { protocol: protocol.as_str(), seconds: began.elapsed().as_secs_f64(), result }
}

fn exchange(target: SocketAddr, protocol: Protocol) -> io::Result<Result<String, Silence>> {
    let mut stream = Bounded::connect(target, PATIENCE)?;
    stream.write_all(&protocol.request())?;
    let mut answer = Vec::new();
    let mut buffer = [0; LONGEST];
    while answer.len() < LONGEST && !protocol.is_complete(&answer) {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        answer.extend(buffer.iter().take(length));
    }
    if answer.is_empty() {
        return Ok(Err(Silence::Closed));
    }
    Ok(protocol.read(&answer).unwrap_or_else(|| Err(Silence::Other(printable(&answer)))))
}

// === impl Protocol ===

impl Protocol {
    /// The protocol of a server with this name and port, if there is one to greet in.
    pub(in super::super) fn of(name: &str, port: u16) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match port {
            5432 => Some(Self::Postgres),
            3306 => Some(Self::MySql),
            6379 => Some(Self::Redis),
            _ if has(&["postgres"]) => Some(Self::Postgres),
            _ if has(&["mysql", "mariadb"]) => Some(Self::MySql),
            _ if has(&["redis", "valkey"]) => Some(Self::Redis),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
        }
    }

    /// What the client says first.
    fn request(self) -> Vec<u8> {
        match self {
            Self::Postgres => {
                let parameters =
                    b"user\0portolan\0database\0portolan\0application_name\0portolan\0\0";
                // The length counts itself and the version, 3.0.
                let mut message = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
                message.extend(196_608u32.to_be_bytes());
                message.extend(parameters);
                message
            }
            // The server speaks first.
            Self::MySql => Vec::new(),
            Self::Redis => b"PING\r\n".to_vec(),
        }
    }

    fn is_complete(self, answer: &[u8]) -> bool {
        match self {
            Self::Postgres => {
                let length = answer.get(1..5).and_then(|bytes| bytes.first_chunk());
                length.is_some_and(|bytes| {
                    answer.len() as u64 > u64::from(u32::from_be_bytes(*bytes))
                })
            }
            Self::MySql => {
                let length =
                    answer.first_chunk().map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]));
                length.is_some_and(|length| answer.len() as u64 >= u64::from(length) + 4)
            }
            Self::Redis => answer.contains(&b'\n'),
        }
    }

    /// The meaning of an answer; `None` if it is not one of this protocol.
    fn read(self, answer: &[u8]) -> Option<Result<String, Silence>> {
        match self {
            Self::Postgres => postgres(answer),
            Self::MySql => mysql(answer),
            Self::Redis => redis(answer),
        }
    }
}

/// A message of authentication, or an error with its fields (man: protocol-message-formats).
fn postgres(answer: &[u8]) -> Option<Result<String, Silence>> {
    let body = answer.get(5..)?;
    match answer.first()? {
        b'R' => Some(Ok("it asks for a login".to_owned())),
        b'E' => {
            let field = |wanted: u8| {
                let mut fields = body.split(|byte| *byte == 0);
                let found = fields.find(|field| field.first() == Some(&wanted))?;
                Some(printable(found.get(1..)?))
            };
            let (code, said) = (field(b'C')?, field(b'M')?);
            // Resources, operator intervention (starting, stopping), system errors.
            let cannot = ["53", "57", "58", "XX"].iter().any(|class| code.starts_with(class));
            Some(if cannot {
                Err(Silence::Refused(said))
            } else {
                Ok(format!("it answers ({said})"))
            })
        }
        _ => None,
    }
}

/// A greeting with the version, or an error packet.
fn mysql(answer: &[u8]) -> Option<Result<String, Silence>> {
    let body = answer.get(4..)?;
    match body.first()? {
        10 => {
            let version = body.get(1..)?.split(|byte| *byte == 0).next()?;
            Some(Ok(format!("version {}", printable(version))))
        }
        0xff => Some(Err(Silence::Refused(printable(body.get(3..)?)))),
        _ => None,
    }
}

fn redis(answer: &[u8]) -> Option<Result<String, Silence>> {
    let text = printable(answer.split(|byte| *byte == b'\r').next()?);
    let word = text.split(' ').next()?;
    match word {
        "+PONG" => Some(Ok("PONG".to_owned())),
        "-NOAUTH" | "-WRONGPASS" | "-NOPERM" => Some(Ok("it asks for a password".to_owned())),
        _ => Some(Err(Silence::Refused(text.strip_prefix('-')?.to_owned()))),
    }
}

/// The beginning of foreign bytes, as one can print it.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(protocol: Protocol, answer: &[u8], expected: Option<Result<&str, Silence>>) {
        let expected = expected.map(|result| result.map(str::to_owned));
        assert_eq!(protocol.read(answer), expected, "{answer:?}");
    }

    #[test]
    fn answers_show_whether_a_database_serves() {
        let refused = |said: &str| Some(Err(Silence::Refused(said.to_owned())));
        let error = |code: &str, said: &str| {
            let body = format!("SFATAL\0C{code}\0M{said}\0\0");
            let mut message = vec![b'E'];
            message.extend((body.len() as u32 + 4).to_be_bytes());
            message.extend(body.as_bytes());
            message
        };
        let login = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
        check(Protocol::Postgres, &login, Some(Ok("it asks for a login")));
        assert!(Protocol::Postgres.is_complete(&login));
        let full = error("53300", "sorry, too many clients already");
        check(Protocol::Postgres, &full, refused("sorry, too many clients already"));
        assert!(
            Protocol::Postgres.is_complete(&full) && !Protocol::Postgres.is_complete(&full[..20])
        );
        let unknown = error("28000", "no entry for host");
        check(Protocol::Postgres, &unknown, Some(Ok("it answers (no entry for host)")));
        check(Protocol::MySql, b"\x0f\0\0\0\x0a8.0.1\0rest", Some(Ok("version 8.0.1")));
        check(
            Protocol::MySql,
            b"\x17\0\0\0\xff\x10\x04Too many connections",
            refused("Too many connections"),
        );
        check(Protocol::Redis, b"+PONG\r\n", Some(Ok("PONG")));
        check(
            Protocol::Redis,
            b"-NOAUTH Authentication required.\r\n",
            Some(Ok("it asks for a password")),
        );
        check(
            Protocol::Redis,
            b"-LOADING Redis is loading\r\n",
            refused("LOADING Redis is loading"),
        );
        check(Protocol::Redis, b"HTTP/1.1 400\r\n", None);
    }

    #[test]
    fn a_protocol_is_known_by_its_port_or_its_name() {
        let check = |name, port, expected| assert_eq!(Protocol::of(name, port), expected, "{name}");
        check("orders-db", 5432, Some(Protocol::Postgres));
        check("redis-server", 7000, Some(Protocol::Redis));
        check("MariaDB", 3307, Some(Protocol::MySql));
        check("web", 8080, None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for protocol in [Protocol::Postgres, Protocol::MySql, Protocol::Redis] {
                let _ = protocol.is_complete(&bytes);
                let _ = protocol.read(&bytes);
            }
        }
    }
}
