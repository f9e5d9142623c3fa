//! The file of a snapshot: one JSON object with what an agent answered, by request; compressed with gzip,
//! and read with or without that.
//!
//! A file comes from somebody else as often as not. It is read up to a limit whatever it decompresses
//! to, and nothing in it is believed to be more than an agent's answer would be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::path::Path;

use api_types::{Timestamp, WindowChoice};
use client::Error;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use notation::duration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::question::Question;

/// The format that is written, and the only one that is read.
const FORMAT: &str = "portolan-snapshot/1";
/// What every format begins with.
const FAMILY: &str = "portolan-snapshot/";

/// JSON at most, bytes: what is larger is not written, and not read.
pub(super) const MOST_BYTES: u64 = 256 << 20;

/// What files in gzip begin with (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What an agent answered at one time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    format: String,
    /// By the clock of the agent's host.
    pub taken_at: Timestamp,
    /// The agent's host by its name, or the URL that it was asked at.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// Release of its kernel.
    pub kernel: String,
    /// What it said to requests that it refused.
    #[serde(default)]
    pub refused: BTreeMap<String, String>,
    /// Its responses, by request.
    pub responses: BTreeMap<String, Box<RawValue>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Without responses.
    pub(super) fn new(taken_at: Timestamp, host: String, version: String, kernel: String) -> Self {
        let (refused, responses) = (BTreeMap::new(), BTreeMap::new());
        Self { format: FORMAT.to_owned(), taken_at, host, version, kernel, refused, responses }
    }

    /// Reads a file that [`Snapshot::write`] wrote.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::File { flag: "--from", path: path.to_owned(), why };
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        Self::read(file, MOST_BYTES).map_err(wrong)
    }

    pub(super) fn read(from: impl Read, most_bytes: u64) -> Result<Self, String> {
        Self::parse(&text(from, most_bytes)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        let is_other = || "it is not a snapshot; write one with `portolan snapshot`".to_owned();
        let broken = |error: serde_json::Error| {
            format!("it is damaged ({error}); write it again with `portolan snapshot`")
        };
        let Format { format } = serde_json::from_str(text).map_err(|error| {
            // JSON of something else, or a file that ends in the middle.
            if error.is_data() { is_other() } else { broken(error) }
        })?;
        match format.strip_prefix(FAMILY) {
            Some(_) if format == FORMAT => serde_json::from_str(text).map_err(broken),
            Some(number) => Err(format!(
                "it is a snapshot of format {number:?}, and this version reads {:?}; use the Portolan that wrote it",
                FORMAT.trim_start_matches(FAMILY)
            )),
            None => Err(is_other()),
        }
    }

    /// Writes it, compressed.
    pub(super) fn write(&self, to: impl Write) -> io::Result<()> {
        let mut gzip = GzEncoder::new(to, Compression::default());
        serde_json::to_writer(&mut gzip, self)?;
        gzip.finish()?.flush()
    }

    /// What the agent answered to the request for `path`.
    pub(crate) fn text(&self, path: &str) -> Result<String, Error> {
        let Question { stored, wanted } = Question::of(path)?;
        match (self.responses.get(&stored), self.refused.get(&stored)) {
            (Some(body), _) => wanted.of(body.get()),
            (None, Some(said)) => Err(Error::Refused { said: said.clone() }),
            (None, None) => Err(Error::Refused { said: self.lacks(&stored) }),
        }
    }

    /// For people: of which host and when, as seen at `now`.
    pub(crate) fn title(&self, now: Timestamp) -> String {
        let Self { taken_at, host, .. } = self;
        let taken_at = Timestamp::from_seconds(taken_at.seconds().floor());
        let age = now.seconds_since(taken_at);
        let age = if age < 0.0 {
            "in the future by the clock of this host".to_owned()
        } else {
            format!("{} ago", duration::ago(age))
        };
        let plain = |c: char| if c.is_control() { '_' } else { c };
        let host: String = host.chars().map(plain).collect();
        format!("snapshot of {host}, taken {taken_at} ({age})")
    }

    /// That there is no response to a request, and which windows there are instead.
    fn lacks(&self, stored: &str) -> String {
        let Some((route, wanted)) = windowed(stored) else {
            return format!("the snapshot does not have {stored}");
        };
        let others = self.responses.keys().filter_map(|key| windowed(key));
        let mut windows: Vec<&str> =
            others.filter(|(of, _)| *of == route).map(|(_, window)| window).collect();
        windows.sort_by_key(|window| window.trim_end_matches('s').parse().unwrap_or(u64::MAX));
        windows.dedup();
        if windows.is_empty() {
            return format!("the snapshot does not have {route}");
        }
        let windows: Vec<String> = windows.into_iter().map(readable).collect();
        let windows = windows.join(", ");
        let has = format!("{} is not in the snapshot: it has {windows}", readable(wanted));
        match wanted.parse::<WindowChoice>() {
            // Those of endpoints and of history cannot be chosen.
            Ok(_) if !wanted.ends_with('s') && !route.ends_with("history") => format!(
                "the window {has}; take another with `portolan snapshot --window {}`",
                readable(wanted)
            ),
            _ => format!("the window {has}"),
        }
    }
}

/// The route and the window of a request that has one.
fn windowed(stored: &str) -> Option<(&str, &str)> {
    let (route, query) = stored.split_once("?window=")?;
    Some((route, query.split('&').next().unwrap_or(query)))
}

/// A window as the command line has it: `5m` for `300`.
fn readable(window: &str) -> String {
    match window.trim_end_matches('s').parse() {
        Ok(seconds) => duration::text(std::time::Duration::from_secs(seconds)),
        Err(_) => window.to_owned(),
    }
}

/// The text of a file, decompressed if it is compressed; `most_bytes` at most.
fn text(from: impl Read, most_bytes: u64) -> Result<String, String> {
    let mut from = BufReader::new(from);
    let begin = from.fill_buf().map_err(|error| error.to_string())?;
    let is_gzip = begin.starts_with(&GZIP);
    let mut bytes = Vec::new();
    let read = if is_gzip {
        MultiGzDecoder::new(from).take(most_bytes + 1).read_to_end(&mut bytes)
    } else {
        from.take(most_bytes + 1).read_to_end(&mut bytes)
    };
    match read {
        Ok(_) if bytes.len() as u64 > most_bytes => Err(format!(
            "it has more than {} MiB; `portolan snapshot` writes no such file",
            most_bytes >> 20
        )),
        Ok(_) => String::from_utf8(bytes)
            .map_err(|_| "it is not a snapshot; write one with `portolan snapshot`".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("it is not complete; copy it again, or write it again with `portolan snapshot`"
                .to_owned())
        }
        Err(error) => Err(format!("it cannot be read ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> Snapshot {
        let (host, version, kernel) = ("shop".into(), "0.1.0".into(), "6.18.0".into());
        let mut snapshot =
            Snapshot::new(Timestamp::from_seconds(1.8e9 + 0.5), host, version, kernel);
        for (request, body) in [
            ("/api/v1/status", r#"{"a":1.10}"#),
            ("/api/v1/edges?window=10", "{}"),
            ("/api/v1/edges?window=300", "{}"),
            ("/api/v1/edges?window=start", "{}"),
            ("/api/v1/edges?window=10&by=address", "{}"),
            ("/api/v1/endpoints?window=3600s&loopback=true", r#"{"endpoints":[]}"#),
        ] {
            let body = RawValue::from_string(body.to_owned()).expect("JSON");
            snapshot.responses.insert(request.to_owned(), body);
        }
        let said = "no segments are declared".to_owned();
        snapshot.refused.insert("/api/v1/segments?window=start".to_owned(), said);
        snapshot
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        snapshot().write(&mut bytes).expect("written");
        bytes
    }

    fn plain() -> String {
        text(&*written(), MOST_BYTES).expect("read")
    }

    #[test]
    fn what_is_written_is_read_compressed_and_plain() {
        for bytes in [written(), plain().into_bytes()] {
            let read = Snapshot::read(&*bytes, MOST_BYTES).expect("ours");
            assert_eq!(read.text("/api/v1/status").expect("there"), r#"{"a":1.10}"#);
            assert_eq!(
                read.title(read.taken_at),
                "snapshot of shop, taken 2027-01-15T08:00:00Z (less than a second ago)"
            );
        }
        assert!(written().starts_with(&GZIP));
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_with_the_place_and_the_fix() {
        let check = |bytes: &[u8], expected: &str| {
            let why = Snapshot::read(bytes, MOST_BYTES).expect_err("refused");
            assert!(why.contains(expected), "{why}");
        };
        let (gzip, plain) = (written(), plain());
        check(&gzip[..gzip.len() / 2], "it is not complete; copy it again");
        check(&plain.as_bytes()[..plain.len() - 3], "at line 1 column");
        check(&plain.as_bytes()[..plain.len() - 3], "write it again with `portolan snapshot`");
        check(plain.replace("1.10", "1.1.0").as_bytes(), "at line 1 column");
        check(plain.replace("\"host\"", "\"hostess\"").as_bytes(), "missing field `host`");
        check(b"{\"portolan_state\": 1}", "it is not a snapshot");
        check(b"[]", "it is not a snapshot");
        check(b"", "it is damaged (EOF");
        check(b"\x7fELF\xff", "it is not a snapshot");
        let mut other = gzip.clone();
        other[12..40].fill(0xff);
        check(&other, "it cannot be read (");
        let next = plain.replace(FORMAT, "portolan-snapshot/2");
        check(next.as_bytes(), "a snapshot of format \"2\", and this version reads \"1\"");
    }

    #[test]
    fn what_decompresses_to_too_much_is_refused_before_it_is_read_whole() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        io::copy(&mut io::repeat(b' ').take(64 << 20), &mut bomb).expect("written");
        let bomb = bomb.finish().expect("written");
        assert!(bomb.len() < 128 << 10, "{}", bomb.len());
        let why = Snapshot::read(&*bomb, 1 << 20).expect_err("refused");
        assert_eq!(why, "it has more than 1 MiB; `portolan snapshot` writes no such file");
        // A file that goes on for ever, without compression.
        let why = Snapshot::read(io::repeat(b' '), 1 << 20).expect_err("refused");
        assert_eq!(why, "it has more than 1 MiB; `portolan snapshot` writes no such file");
    }

    #[test]
    fn what_a_snapshot_lacks_is_said_with_what_it_has() {
        let check = |path: &str, expected: &str| {
            assert_eq!(snapshot().text(path).expect_err(path).to_string(), expected);
        };
        check(
            "/api/v1/edges?window=120",
            "the window 2m is not in the snapshot: it has 10s, 5m, start; take another with `portolan snapshot --window 2m`",
        );
        check("/api/v1/endpoints?window=7d", "the window 7d is not in the snapshot: it has 1h");
        check("/api/v1/map?window=60", "the snapshot does not have /api/v1/map");
        check("/api/v1/flows", "the snapshot does not have /api/v1/flows");
        check("/api/v1/segments", "no segments are declared");
        check(
            "/api/v1/map?window=60&service=web",
            "the window 1m is not in the snapshot: it has 10s, 5m, start; take another with `portolan snapshot --window 1m`",
        );
        check(
            "/api/v1/services?service=web",
            "a snapshot has the whole of /api/v1/services: it cannot be filtered like /api/v1/services?service=web",
        );
        check(
            "/api/v1/events?after=7",
            "/api/v1/events?after=7 cannot be answered from a snapshot: unknown field `after`, expected one of `window`, `by`, `role`, `service`, `client`, `server`, `port`, `since`, `kind`, `cause`, `limit`, `loopback`",
        );
        check(
            "/api/v1/edges?window=7m",
            "\"7m\" is not a window; write a duration from 1s to 5m, or start",
        );
    }

    #[test]
    fn a_host_that_somebody_else_named_does_not_reach_the_terminal() {
        let mut snapshot = snapshot();
        snapshot.host = "sh\x1b[2Jop\n".to_owned();
        let title = snapshot.title(Timestamp::from_seconds(1.8e9 + 360.0));
        assert_eq!(title, "snapshot of sh_[2Jop_, taken 2027-01-15T08:00:00Z (6 minutes ago)");
        assert!(snapshot.title(Timestamp::from_seconds(1.0)).contains("(in the future"));
    }

    proptest! {
        #[test]
        fn no_file_makes_a_panic(cut in 0usize..400, flip in 0usize..400, to: u8, gzip: bool) {
            let mut bytes = if gzip { written() } else { plain().into_bytes() };
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some(byte) = bytes.get_mut(flip) {
                *byte = to;
            }
            if let Ok(read) = Snapshot::read(&*bytes, MOST_BYTES) {
                for request in read.responses.keys() {
                    let _ = read.text(request);
                }
            }
        }
    }
}
