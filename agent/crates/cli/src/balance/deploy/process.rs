//! Programs that a deployment runs: with a deadline, and with an error that says how they ended.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// No checker and no reload takes longer.
const LONGEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// How a program ended, and what it said.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A program that is stopped when this is dropped.
pub(super) struct Guard(pub Child);

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> anyhow::Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(spawn(command, &name)?);
    let (out, err) = (child.0.stdout.take(), child.0.stderr.take());
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // What was read before an error is shown.
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(out.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = read(err.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().with_context(|| format!("waiting for {name}"))? {
            break status;
        }
        if began.elapsed() > LONGEST {
            bail!("{name} did not end within {} s", LONGEST.as_secs());
        }
        thread::sleep(PAUSE);
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ok(Ended { status, stdout: text(out), stderr: text(err) })
}

/// Starts a program; if it is not there, the error says how to name it.
pub(super) fn spawn(command: &mut Command, name: &str) -> anyhow::Result<Child> {
    command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("{name} is not in PATH; name it with --program PATH")
        }
        _ => anyhow::Error::new(error).context(format!("starting {name}")),
    })
}

// === impl Ended ===

impl Ended {
    /// What it complained about, in one line of reasonable length.
    pub(super) fn complaint(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> =
            said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // The last lines say what failed.
        let from = lines.len().saturating_sub(6);
        let text = lines.get(from..).unwrap_or_default().join("; ");
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if text.is_empty() { self.status.to_string() } else { text }
    }
}

// === impl Guard ===

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
