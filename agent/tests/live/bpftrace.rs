//! bpftrace as a reference: it counts the same kernel events beside the agent.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::exactness::missing;
use crate::facts::patience;

/// Timeout for attaching and for exiting.
const SLOWEST: Duration = Duration::from_mins(1);
/// Between two signals that stop it; it detaches in less.
const BETWEEN_SIGNALS: Duration = Duration::from_secs(2);
/// Printed before it counts.
const READY: &str = "ready";

/// A script that runs.
pub struct Bpftrace {
    tool: Child,
    said: Receiver<String>,
}

impl Bpftrace {
    /// Starts a script and waits until it traces, or returns why it cannot.
    pub fn start(script: &str) -> Result<Self, String> {
        if let Some(why) = missing(&["bpftrace"]) {
            return Err(why);
        }
        let script = format!("BEGIN {{ printf(\"{READY}\\n\"); }} {script}");
        let mut command = Command::new("bpftrace");
        command.args(["-B", "line", "-e", &script]);
        // Should the test end before its time, so does the tool.
        // SAFETY: prctl is a plain system call: sound between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tool = command.spawn().unwrap();
        let output = BufReader::new(tool.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut this = Self { tool, said };
        let until = Instant::now() + patience(SLOWEST);
        loop {
            match this.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(READY) => return Ok(this),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("bpftrace hangs: {}", this.stack()),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = this.tool.wait().unwrap();
                    return Err(format!("bpftrace cannot trace here ({status})"));
                }
            }
        }
    }

    /// Stops it, and returns its counts: `@name: value` lines.
    pub fn end(mut self) -> Vec<String> {
        let pid = i32::try_from(self.tool.id()).unwrap();
        let until = Instant::now() + patience(SLOWEST);
        let mut lines = Vec::new();
        while Instant::now() < until {
            // Version 0.17 notices a signal only if it interrupts its wait: on a busy machine it
            // missed every second one.
            // SAFETY: kill touches no memory; the child was not waited for, so the pid is its own.
            unsafe { libc::kill(pid, libc::SIGINT) };
            loop {
                match self.said.recv_timeout(BETWEEN_SIGNALS) {
                    Ok(line) => lines.push(line),
                    Err(mpsc::RecvTimeoutError::Timeout) => break,
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        self.tool.wait().unwrap();
                        return lines;
                    }
                }
            }
        }
        panic!("bpftrace does not end: {}, it said {lines:?}", self.stack())
    }

    /// Where in the kernel it waits.
    fn stack(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/stack", self.tool.id())).unwrap_or_default()
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}
