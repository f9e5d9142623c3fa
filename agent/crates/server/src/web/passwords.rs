//! Basic authentication: bcrypt hashes from the file.
//!
//! bcrypt is slow on purpose, so it runs outside the event loop, one comparison at a time, and
//! verified passwords are cached as a digest with a key of this process: they never wait. After a
//! wrong password the next comparison waits until all of them together have taken at most a fifth
//! of one CPU, and its address pauses ([`BackOff`]). Every wrong password costs as much as the most
//! expensive hash of the file, whether the user exists or not.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use model::line_shares::LineShares;

use super::back_off::{BackOff, network};
use super::file::Secret;

/// The highest cost that is accepted: about a minute for each comparison.
const HIGHEST_COST: u32 = 20;

/// From this cost on a comparison takes longer than Prometheus waits for a scrape, or nearly.
const SLOW_COST: u32 = 16;

/// Maximum number of queued comparisons; more are refused, so that guesses do not fill the slots.
const QUEUE: usize = 16;

/// The rest after a wrong password, as a multiple of the time that its comparison took.
const REST: u32 = 4;

/// How long a comparison may wait for its turn: as long as Prometheus waits for a scrape.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What to wait if there was no turn.
const BUSY: Duration = Duration::from_secs(1);

/// Lines of the log about the wrong passwords of one address in a minute.
const LINES_OF_AN_ADDRESS: u64 = 1;

/// bcrypt ignores everything beyond this length.
const LONGEST_PASSWORD: usize = 72;

/// The answer to a user and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let in.
    Right,
    /// Not a user with this password.
    Wrong,
    /// Not compared: this address has to wait.
    Later(Duration),
}

/// The users of one version of the file.
pub(super) struct Passwords {
    users: BTreeMap<String, Hash>,
    /// The cost of every comparison.
    highest: u32,
    gate: Arc<Gate>,
}

/// A bcrypt hash and its cost.
#[derive(Clone)]
struct Hash {
    text: String,
    cost: u32,
}

/// What outlives a change of the file: verified passwords, and the pauses of addresses.
pub(super) struct Gate {
    key: hmac::Key,
    /// Digests of verified passwords, by user: at most one each.
    verified: Mutex<HashMap<String, Vec<u8>>>,
    back_off: Mutex<BackOff>,
    queue: Arc<Semaphore>,
    /// Held during a comparison; when the next may begin.
    turn: tokio::sync::Mutex<Option<Instant>>,
    began: Instant,
    lines: Mutex<LineShares<IpAddr>>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords of {} users", self.users.len())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

// === impl Passwords ===

impl Passwords {
    /// Parses the hashes; `None` without users, so no password is required.
    pub(super) fn new(
        users: &BTreeMap<String, Secret>,
        gate: &Arc<Gate>,
    ) -> anyhow::Result<Option<Self>> {
        let parse = |(name, Secret(text)): (&String, &Secret)| {
            let cost = cost(text).with_context(|| format!("basic_auth_users: {name}"))?;
            Ok((name.clone(), Hash { text: text.clone(), cost }))
        };
        let users: BTreeMap<_, _> = users.iter().map(parse).collect::<anyhow::Result<_>>()?;
        let Some(highest) = users.values().map(|hash| hash.cost).max() else { return Ok(None) };
        if highest >= SLOW_COST {
            tracing::warn!(
                "a password hash of the web configuration has cost {highest}: the first request of a client takes seconds, later ones do not (the password is remembered); 10 to 12 are usual"
            );
        }
        lock(&gate.verified).retain(|name, _| users.contains_key(name));
        Ok(Some(Self { users, highest, gate: Arc::clone(gate) }))
    }

    /// Whether the value of an Authorization header of `peer` names a user and the right password.
    pub(super) async fn admit(&self, peer: IpAddr, given: Option<&str>) -> Verdict {
        let Self { users, highest, gate } = self;
        let Some((name, password)) = given.and_then(credentials) else { return Verdict::Wrong };
        if password.len() > LONGEST_PASSWORD {
            return Verdict::Wrong;
        }
        let known = users.get(&name);
        let digest = gate.digest(&name, known.map_or("", |hash| &hash.text), &password);
        if gate.has_verified(&name, &digest) {
            return Verdict::Right;
        }
        let begun = lock(&gate.back_off).begin(peer, Instant::now());
        if let Err(wait) = begun {
            return Verdict::Later(wait);
        }
        let attempt =
            Attempt { peer, name, password, hash: known.cloned(), highest: *highest, digest };
        // A task of its own: a client that disconnects neither frees its turn nor its failure.
        tokio::spawn(attempt.judge(Arc::clone(gate))).await.unwrap_or(Verdict::Later(BUSY))
    }
}

/// A password that has to be compared.
struct Attempt {
    peer: IpAddr,
    name: String,
    password: String,
    /// `None`: no such user.
    hash: Option<Hash>,
    highest: u32,
    digest: Vec<u8>,
}

impl Attempt {
    /// Waits for a turn, compares and records the result.
    async fn judge(self, gate: Arc<Gate>) -> Verdict {
        let peer = self.peer;
        let right = self.compared(&gate).await;
        let wrong = lock(&gate.back_off).end(peer, right, Instant::now());
        if let Some(wrong) = wrong {
            gate.report(peer, wrong);
        }
        match right {
            Some(true) => Verdict::Right,
            Some(false) => Verdict::Wrong,
            None => Verdict::Later(BUSY),
        }
    }

    /// `None` if there was no turn in time.
    async fn compared(self, gate: &Gate) -> Option<bool> {
        let Self { peer: _, name, password, hash, highest, digest } = self;
        let _place = gate.queue.try_acquire().ok()?;
        let turn = async {
            let turn = gate.turn.lock().await;
            if let Some(next) = *turn {
                tokio::time::sleep_until(next.into()).await;
            }
            turn
        };
        let mut turn = tokio::time::timeout(LONGEST_WAIT, turn).await.ok()?;
        // The same password may have been verified while this one waited.
        if gate.has_verified(&name, &digest) {
            return Some(true);
        }
        let began = Instant::now();
        let compare = move || compare(&password, hash.as_ref(), highest);
        let right = tokio::task::spawn_blocking(compare).await.unwrap_or(false);
        if right {
            lock(&gate.verified).insert(name, digest);
        } else {
            *turn = Some(rested(began, Instant::now()));
        }
        Some(right)
    }
}

/// When the next comparison may begin after one from `began` to `ended`.
fn rested(began: Instant, ended: Instant) -> Instant {
    ended + ended.duration_since(began) * REST
}

/// The costs of the comparisons that follow a wrong password, with hashes that no password has: for
/// a hash of cost c, which took 2^c, another 2^c + … + 2^(highest-1). Without a user the whole,
/// 2^highest.
fn decoys(hash: Option<&Hash>, highest: u32) -> RangeInclusive<u32> {
    hash.map_or(highest..=highest, |hash| hash.cost..=highest.saturating_sub(1))
}

/// Compares; a wrong password at the cost `highest`, whatever the hash.
fn compare(password: &str, hash: Option<&Hash>, highest: u32) -> bool {
    let right = hash.is_some_and(|hash| bcrypt::verify(password, &hash.text).unwrap_or(false));
    if right {
        return true;
    }
    for cost in decoys(hash, highest) {
        let decoy = format!("$2b${cost:02}${}", ".".repeat(53));
        // Never equal: only the time counts.
        std::hint::black_box(bcrypt::verify(password, &decoy).is_ok());
    }
    false
}

// === impl Gate ===

impl Gate {
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| anyhow!("the system has no random numbers"))?;
        Ok(Self {
            key,
            verified: Mutex::default(),
            back_off: Mutex::default(),
            queue: Arc::new(Semaphore::new(QUEUE)),
            turn: tokio::sync::Mutex::default(),
            began: Instant::now(),
            lines: Mutex::new(LineShares::of(LINES_OF_AN_ADDRESS)),
        })
    }

    fn has_verified(&self, name: &str, digest: &[u8]) -> bool {
        lock(&self.verified).get(name).is_some_and(|verified| verified == digest)
    }

    fn digest(&self, name: &str, hash: &str, password: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, hash, password] {
            // Lengths distinguish "ab" + "c" from "a" + "bc".
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }

    /// Logs a wrong password, once a minute for each address; returns whether it did.
    fn report(&self, peer: IpAddr, wrong: u32) -> bool {
        let mut lines = lock(&self.lines);
        let left_out = lines.turn(self.began.elapsed().as_secs());
        if left_out > 0 {
            tracing::warn!(
                "{left_out} more wrong users or passwords for the HTTP endpoint in an earlier minute"
            );
        }
        let is_written = lines.admit(network(peer));
        if is_written {
            tracing::warn!(%peer, wrong, "wrong user or password for the HTTP endpoint; after a few, the address has to wait between attempts");
        }
        is_written
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name and password of `Basic base64(name:password)`.
fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// The cost in a hash `$2y$10$` and 53 characters.
fn cost(hash: &str) -> anyhow::Result<u32> {
    let mut parts = hash.split('$').skip(1);
    let (kind, cost, rest) = (parts.next(), parts.next(), parts.next());
    let known = matches!(kind, Some("2a" | "2b" | "2x" | "2y"));
    let cost = cost.and_then(|cost| cost.parse::<u32>().ok()).filter(|cost| *cost >= 4);
    let (true, Some(cost), Some(53)) = (known, cost, rest.map(str::len)) else {
        bail!("the password is not a bcrypt hash; make one with `htpasswd -nBC 10 NAME`");
    };
    if cost > HIGHEST_COST {
        bail!("a hash of cost {cost} takes minutes to compare; at most {HIGHEST_COST}");
    }
    Ok(cost)
}

#[cfg(test)]
mod tests;
