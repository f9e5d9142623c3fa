//! Basic authentication: bcrypt hashes from the file.
//!
//! bcrypt is slow on purpose, so it runs outside the event loop, one comparison at a time, and
//! verified passwords are cached as a digest with a key of this process. An unknown user takes as
//! long as a wrong password.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::file::Secret;

/// Costs beyond this take seconds for every password, right or wrong.
const HIGHEST_COST: u32 = 15;

/// How many passwords are remembered; then it begins anew.
const REMEMBERED: usize = 100;

/// Maximum number of queued comparisons; more are refused, so that guesses do not fill the slots.
const QUEUE: usize = 16;

/// bcrypt ignores everything beyond this length.
const LONGEST_PASSWORD: usize = 72;

/// The users.
pub(super) struct Passwords {
    users: BTreeMap<String, String>,
    /// Compared with the password of an unknown user: a hash without a password, of the usual cost.
    decoy: String,
    key: hmac::Key,
    right: Mutex<HashSet<Vec<u8>>>,
    one_at_a_time: Semaphore,
    queue: Semaphore,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords of {} users", self.users.len())
    }
}

impl Passwords {
    /// Parses the hashes; `None` without users, so no password is required.
    pub(super) fn new(users: &BTreeMap<String, Secret>) -> anyhow::Result<Option<Self>> {
        let mut highest = 4;
        for (name, Secret(hash)) in users {
            let cost = cost(hash).with_context(|| format!("basic_auth_users: {name}"))?;
            highest = highest.max(cost);
        }
        if users.is_empty() {
            return Ok(None);
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| anyhow!("the system has no random numbers"))?;
        Ok(Some(Self {
            users: users.iter().map(|(name, Secret(hash))| (name.clone(), hash.clone())).collect(),
            decoy: format!("$2b${highest:02}${}", ".".repeat(53)),
            key,
            right: Mutex::default(),
            one_at_a_time: Semaphore::new(1),
            queue: Semaphore::new(QUEUE),
        }))
    }

    /// Whether the value of an Authorization header names a user and the right password.
    pub(super) async fn admit(&self, given: Option<&str>) -> bool {
        let Some((name, password)) = given.and_then(credentials) else { return false };
        if password.len() > LONGEST_PASSWORD {
            return false;
        }
        let known = self.users.get(&name);
        let hash = known.unwrap_or(&self.decoy).clone();
        let digest = self.digest(&name, &hash, &password);
        let remembered = || self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered().contains(&digest) {
            return true;
        }
        // Only unknown passwords wait here: a remembered one never does.
        let Ok(_place) = self.queue.try_acquire() else { return false };
        let Ok(_turn) = self.one_at_a_time.acquire().await else { return false };
        // The same password may have been verified while this one waited.
        if remembered().contains(&digest) {
            return true;
        }
        let compare = move || bcrypt::verify(password, &hash).unwrap_or(false);
        let right = tokio::task::spawn_blocking(compare).await.unwrap_or(false) && known.is_some();
        if right {
            let mut remembered = remembered();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(digest);
        }
        right
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
        bail!("a hash of cost {cost} takes seconds to compare; at most {HIGHEST_COST}");
    }
    Ok(cost)
}
