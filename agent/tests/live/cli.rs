//! The commands against an agent behind TLS and a password, as users run both.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, Start, binary, forget_our_variables};
use crate::facts::patience;
use crate::web::Keys;

/// Every command that only reads.
const READING: &[&[&str]] = &[
    &["status"],
    &["edges"],
    &["events"],
    &["services"],
    &["services", "list"],
    &["services", "health"],
    &["map"],
    &["balance"],
    &["check", "--only", "coverage"],
    &["timeouts"],
    &["segments"],
    &["segments", "violations"],
    &["ports"],
    &["ports", "who", "1"],
    &["ports", "conflicts"],
    &["ports", "reservations"],
];

/// Segments, so that `portolan segments` has something to show.
const CONFIGURATION: &str = "[segments.all]\nnetworks = [\"127.0.0.0/8\"]\n";

/// An agent that requires a client certificate and a password.
struct Guarded {
    keys: Keys,
    agent: Agent,
}

// === impl Guarded ===

impl Guarded {
    fn start() -> Self {
        let keys = Keys::new();
        let hash = bcrypt::hash("sesame", 4).unwrap();
        let web = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n";
        let web = keys.write("web.yml", &format!("{web}basic_auth_users:\n  ann: {hash}\n"));
        let config = keys.write("portolan.toml", CONFIGURATION);
        keys.write("password", "sesame\n");
        let settings = vec![("web.config_file", web.as_str()), ("config", config.as_str())];
        let agent = Agent::launch(&Start { settings, unasked: true, ..Start::default() });
        Self { keys, agent }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.agent.address.port())
    }

    fn file(&self, name: &str) -> String {
        self.keys.path(name).display().to_string()
    }

    /// The options that this agent requires.
    fn credentials(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PORTOLAN_URL", self.url()),
            ("PORTOLAN_CA_FILE", self.file("ca.pem")),
            ("PORTOLAN_CERT", self.file("scraper.pem")),
            ("PORTOLAN_KEY", self.file("scraper.key")),
            ("PORTOLAN_USER", "ann".to_owned()),
            ("PORTOLAN_PASSWORD_FILE", self.file("password")),
        ]
    }
}

/// Runs a command with these variables.
fn run(arguments: &[&str], variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(binary());
    forget_our_variables(&mut command);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    command.output().expect("starting portolan")
}

/// Waits until the agent answers authorised clients.
fn wait_for(credentials: &[(&str, String)]) {
    let began = Instant::now();
    while !run(&["status"], credentials).status.success() {
        assert!(began.elapsed() < patience(Duration::from_secs(15)), "not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_that_reads_works_behind_tls_and_a_password() {
    needs_kernel!();
    let guarded = Guarded::start();
    let credentials = guarded.credentials();
    wait_for(&credentials);
    for command in READING {
        let output = run(command, &credentials);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        assert!(!output.stdout.is_empty(), "{command:?}");
        let json = [*command, &["--output", "json"]].concat();
        let output = run(&json, &credentials);
        let answer: Result<Value, _> = serde_json::from_slice(&output.stdout);
        assert!(
            answer.is_ok_and(|answer| answer.is_object()),
            "{json:?}: {}",
            text(&output.stderr)
        );
    }
    // The same by flags.
    let (url, file) = (guarded.url(), |name: &str| guarded.file(name));
    let (ca, cert, key, password) =
        (file("ca.pem"), file("scraper.pem"), file("scraper.key"), file("password"));
    let flags = ["status", "--url", &url, "--ca-file", &ca, "--cert", &cert, "--key", &key];
    let flags = [&flags[..], &["--user", "ann", "--password-file", &password]].concat();
    assert!(run(&flags, &[]).status.success());
    // The socket requires none of it.
    let socket = guarded.agent.run_directory().join("control.sock").display().to_string();
    assert!(run(&["status", "--socket", &socket], &[]).status.success());
    guarded.agent.stop();
}

#[test]
fn what_is_missing_is_named_with_its_flag() {
    needs_kernel!();
    let guarded = Guarded::start();
    let all = guarded.credentials();
    wait_for(&all);
    // What was given is wrong: 2; the agent does not let us in: 3.
    let without = |names: &[&str], code, expected: &str| {
        let kept = all.iter().filter(|(name, _)| !names.contains(name)).cloned();
        let output = run(&["status"], &kept.collect::<Vec<_>>());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(expected), "{said}");
    };
    without(&["PORTOLAN_USER", "PORTOLAN_PASSWORD_FILE"], 3, "--user and --password-file");
    without(&["PORTOLAN_PASSWORD_FILE"], 2, "--user needs --password-file");
    without(&["PORTOLAN_CERT", "PORTOLAN_KEY"], 3, "--cert and --key");
    without(&["PORTOLAN_CA_FILE"], 3, "--ca-file");
    let plain = format!("http://{}", guarded.agent.address);
    let output = run(&["status", "--url", &plain], &[]);
    assert!(text(&output.stderr).contains("speaks TLS"), "{}", text(&output.stderr));
    fs::write(guarded.keys.path("password"), "open\n").unwrap();
    without(&[], 3, "does not accept this user and password (401)");
    guarded.agent.stop();
}
