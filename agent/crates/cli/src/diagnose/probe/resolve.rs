//! A name as the client resolves it: by the hosts and resolv.conf of its root directory, asked from
//! its network namespace.
//!
//! What goes beyond these files (nsswitch.conf, mDNS, a caching daemon) is not imitated.

mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use linux::foreign_path;

use super::super::evidence::Lookup;
use message::Answer;

/// More of these files is not read.
const LONGEST_FILE: u64 = 64 << 10;
/// As libc: more servers and domains are ignored.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;
/// For one question.
const PATIENCE: Duration = Duration::from_secs(1);
/// For all of them.
const DEADLINE: Duration = Duration::from_secs(4);
/// Of each name with each server.
const ATTEMPTS: usize = 2;

/// What resolv.conf says.
#[derive(Debug, PartialEq, Eq)]
struct Config {
    servers: Vec<IpAddr>,
    domains: Vec<String>,
    /// A name with fewer dots is tried in the domains first.
    dots: usize,
}

/// Resolves `name` as `process` would, or as this command does.
pub(super) fn lookup(name: &str, process: Option<u32>) -> Lookup {
    let found = |by: &str, result| Lookup { name: name.to_owned(), by: by.to_owned(), result };
    if let Ok(address) = name.parse() {
        return found("an address", Ok(vec![address]));
    }
    let hosts = in_hosts(&read(process, "/etc/hosts"), name);
    if !hosts.is_empty() {
        return found("/etc/hosts", Ok(hosts));
    }
    let config = Config::parse(&read(process, "/etc/resolv.conf"));
    let deadline = Instant::now() + DEADLINE;
    let mut last = found("resolv.conf", Err("no DNS server is configured".to_owned()));
    for full in config.names(name) {
        for server in &config.servers {
            let by = format!("DNS server {server}");
            match ask(*server, &full, deadline) {
                Ok(Answer { addresses, .. }) if !addresses.is_empty() => {
                    return found(&by, Ok(addresses));
                }
                Ok(Answer { code, .. }) => {
                    last = found(&by, Err(meaning(code)));
                    // It has answered: the next server would answer the same.
                    break;
                }
                Err(error) => {
                    let why = if error.kind() == io::ErrorKind::TimedOut {
                        "it does not answer".to_owned()
                    } else {
                        error.to_string()
                    };
                    last = found(&by, Err(why));
                }
            }
        }
    }
    last
}

/// Whether a server answers a question that it needs no other server for.
pub(super) fn answers(server: IpAddr) -> Result<(), String> {
    match question(server, "localhost", message::A, Instant::now() + DEADLINE) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(format!("nothing within {} s", (PATIENCE * ATTEMPTS as u32).as_secs()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Of both families, IPv4 first: libc prefers by its own address and the route, which are not
/// compared here.
fn ask(server: IpAddr, name: &str, deadline: Instant) -> io::Result<Answer> {
    let mut answer = question(server, name, message::A, deadline)?;
    if answer.code == 0 {
        let v6 = question(server, name, message::AAAA, deadline)?;
        answer.addresses.extend(v6.addresses);
    }
    Ok(answer)
}

fn question(server: IpAddr, name: &str, kind: u16, deadline: Instant) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    // The kernel discards what comes from anybody else.
    socket.connect(SocketAddr::new(server, 53))?;
    let mut buffer = [0; 4096];
    for _ in 0..ATTEMPTS {
        let id = message::random_id();
        let query = message::query(id, name, kind).ok_or(io::ErrorKind::InvalidInput)?;
        socket.send(&query)?;
        let until = deadline.min(Instant::now() + PATIENCE);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Some(answer) = message::read(bytes, id) {
                        return Ok(answer);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// A code of RFC 1035, 4.1.1.
fn meaning(code: u8) -> String {
    match code {
        0 => "it has no address".to_owned(),
        2 => "the DNS server fails (SERVFAIL)".to_owned(),
        3 => "there is no such name (NXDOMAIN)".to_owned(),
        5 => "the DNS server refuses (REFUSED)".to_owned(),
        code => format!("the DNS server answers with code {code}"),
    }
}

/// A file below the root of the client, or of this command.
fn read(process: Option<u32>, path: &str) -> String {
    let bytes = match process {
        Some(tgid) => foreign_path::read_file(tgid, Path::new(path), LONGEST_FILE),
        None => std::fs::read(path),
    };
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.'))).then_some(address)
    };
    text.lines().filter_map(line).collect()
}

// === impl Config ===

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), domains: Vec::new(), dots: 1 };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (fe80::1%eth0) is not understood.
                    let server: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                    config.servers.extend(server);
                }
                // The last line wins.
                Some("search" | "domain") => config.domains = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    config.dots = dots.unwrap_or(config.dots).min(15);
                }
                _ => {}
            }
        }
        config.servers.truncate(MOST_SERVERS);
        config.domains.truncate(MOST_DOMAINS);
        if config.servers.is_empty() {
            config.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        config
    }

    /// The names to ask for, in their order.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> =
            self.domains.iter().map(|domain| format!("{name}.{domain}")).collect();
        let enough = name.matches('.').count() >= self.dots;
        names.insert(if enough { 0 } else { names.len() }, name.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_libc_reads_them() {
        let config = Config::parse(
            "# made by hand\nsearch old.example\nnameserver 192.0.2.53\nnameserver fd00::53 # second\n\
             search shop.svc.cluster.local svc.cluster.local\noptions edns0 ndots:5\n",
        );
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.dots, 5);
        assert_eq!(
            config.names("db.prod"),
            ["db.prod.shop.svc.cluster.local", "db.prod.svc.cluster.local", "db.prod"]
        );
        assert_eq!(config.names("db.prod."), ["db.prod"]);
        let empty = Config::parse("");
        assert_eq!((empty.servers, empty.dots), (vec![Ipv4Addr::LOCALHOST.into()], 1));
        assert_eq!(Config::parse("search a\n").names("x.y"), ["x.y", "x.y.a"]);
        let hosts = "127.0.0.1 localhost\n10.0.0.9\tdb.example DB # the database\n";
        assert_eq!(in_hosts(hosts, "db"), ["10.0.0.9".parse::<IpAddr>().expect("an address")]);
        assert!(in_hosts(hosts, "database").is_empty());
    }

    #[test]
    fn an_address_is_its_own_answer_and_hosts_come_before_dns() {
        let lookup = lookup("192.0.2.1", None);
        assert_eq!(lookup.result, Ok(vec![[192, 0, 2, 1].into()]));
        let hosts = super::lookup("localhost", Some(std::process::id()));
        assert!(hosts.result.is_ok_and(|found| found.iter().all(IpAddr::is_loopback)));
    }
}
