//! The command under test, as it is run, and what it says.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Agent, binary, forget_our_variables};
use crate::facts::patience;

/// A diagnosis with its probes takes no longer: connects, then a handshake or a request.
const LONGEST: Duration = Duration::from_secs(12);

/// What a diagnosis has found.
pub(super) struct Diagnosis {
    pub(super) code: i32,
    /// All of it.
    pub(super) answer: Value,
    /// The first report.
    pub(super) report: Value,
    pub(super) said: String,
}

impl Diagnosis {
    /// Runs `portolan diagnose` as an administrator of this host would.
    pub(super) fn of(agent: &Agent, arguments: &[&str]) -> Self {
        Self::at(&format!("http://{}", agent.address), arguments)
    }

    /// The same with the address of an agent, where there may be none.
    pub(super) fn at(url: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        forget_our_variables(&mut command);
        command.args(["diagnose", "-o", "json", "--url", url]);
        let began = Instant::now();
        let output = command.args(arguments).output().expect("starting portolan");
        assert!(began.elapsed() < patience(LONGEST), "{arguments:?} took {:?}", began.elapsed());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let answer: Value = serde_json::from_str(&said).unwrap_or_default();
        let code = output.status.code().expect("an exit code");
        Self { code, report: answer["reports"][0].clone(), answer, said }
    }

    #[track_caller]
    pub(super) fn is(&self, cause: &str, code: i32) {
        let found = self.report["verdict"]["cause"].as_str();
        assert_eq!((found, self.code), (Some(cause), code), "{}", self.said);
    }

    #[track_caller]
    pub(super) fn says(&self, words: &str) {
        let text = self.report["verdict"]["text"].as_str().unwrap_or_default();
        assert!(text.contains(words), "{}", self.said);
    }
}
