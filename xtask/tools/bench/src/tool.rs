//! A tracing program of another project: started, waited for until it is attached, stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_kit::shell;

/// Timeout for a tool to attach; bpftrace compiles its script first.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the number of its programs must stay the same.
const CALM: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(20);

/// A running tool.
pub struct Tool {
    name: String,
    child: Child,
    output: PathBuf,
    /// Lines written before it was attached.
    preamble: usize,
}

impl Tool {
    /// Starts it, its output into a file, and returns when its programs are attached.
    ///
    /// No tool reports on a pipe that it is ready, but all hold descriptors of their programs.
    pub fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = directory.join(format!("{name}.out"));
        let file = File::create(&output).context("creating a file for the tool's output")?;
        let errors = file.try_clone().context("creating a file for the tool's output")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        let mut tool = Self { name, child, output, preamble: 0 };
        match tool.wait() {
            Ok(()) => {
                tool.preamble = tool.text().lines().count();
                Ok(tool)
            }
            Err(error) => {
                let _ = tool.child.kill();
                let _ = tool.child.wait();
                Err(error)
            }
        }
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and returns how many lines it wrote since it was attached.
    pub fn stop(mut self) -> Result<usize> {
        stop(&mut self.child, "INT").with_context(|| format!("stopping {}", self.name))?;
        Ok(self.text().lines().count().saturating_sub(self.preamble))
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut programs = 0;
        let mut since = started;
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().context("waiting for the tool")? {
                bail!("{} ended at once ({status}): {}", self.name, self.last_line());
            }
            let now = programs_of(self.child.id());
            if now != programs {
                (programs, since) = (now, Instant::now());
            } else if programs > 0 && since.elapsed() > CALM {
                return Ok(());
            }
            sleep(STEP);
        }
        bail!("{} attached no program in {} s: {}", self.name, PATIENCE.as_secs(), self.last_line())
    }

    fn text(&self) -> String {
        let bytes = fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn last_line(&self) -> String {
        self.text().lines().last().unwrap_or("no output").trim().to_owned()
    }
}

/// Sends a signal by name and waits for the end.
pub fn stop(child: &mut Child, signal: &str) -> Result<()> {
    let id = child.id().to_string();
    shell::quiet(Command::new("sh").args(["-c", "kill -$0 $1", signal, &id]))?;
    child.wait().context("waiting for its end")?;
    Ok(())
}

/// How many descriptors of a process are BPF programs or links.
fn programs_of(id: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/fdinfo")) else { return 0 };
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    infos.filter(|info| info.contains("prog_id:")).count()
}
