//! The machine: QEMU, emulating, with a kernel, an initramfs and a console that is read.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::architecture::Architecture;
use crate::emulator::Emulator;
use crate::image::DONE;

/// Memory of the machine; the agent chooses the sizes of its tables by it.
const MEMORY: &str = "1536M";
/// Two, so that hooks run concurrently.
const PROCESSORS: &str = "2";

/// The inputs of a machine.
pub struct Boot<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// More arguments for the kernel's command line.
    pub arguments: &'a str,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Run {
    /// Exit code of the task inside, if it got that far.
    pub code: Option<i32>,
    /// The full version of the kernel.
    pub release: String,
    /// Everything between the kernel's name and the end.
    pub output: Vec<String>,
}

/// Boots and returns when the machine has powered off or `patience` is over; the console goes line
/// by line to `line`, and to `log` with the seconds since the start.
pub fn run(
    architecture: &Architecture,
    boot: &Boot<'_>,
    patience: Duration,
    log: &Path,
    mut line: impl FnMut(&str),
) -> Result<Run> {
    let mut file = File::create(log).context("creating a file for the console")?;
    // An emulator computes without a pause; what runs beside it has deadlines.
    let mut command = Command::new("nice");
    // Ends the machine should it hang, and with us if we end first.
    command.args(["-n", "10", "timeout", "--kill-after=5"]).arg(patience.as_secs().to_string());
    Emulator::of(architecture)?.add_to(&mut command);
    command.args(["-accel", "tcg,thread=multi", "-smp", PROCESSORS]).args(architecture.machine);
    command.args(["-m", MEMORY, "-nographic", "-no-reboot", "-nic", "none"]);
    let Boot { kernel, initramfs, arguments } = boot;
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let console = architecture.console;
    let arguments = format!("console={console} quiet panic=-1 rdinit=/init {arguments}");
    command.args(["-append", &arguments]);
    let errors = file.try_clone().context("creating a file for the emulator's errors")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().context("starting the emulator")?;
    let console = child.stdout.take().context("no pipe to the console")?;
    let (mut run, mut inside, began) = (Run::default(), false, Instant::now());
    for raw in BufReader::new(console).split(b'\n') {
        let raw = raw.context("reading the console")?;
        let text = String::from_utf8_lossy(&raw);
        let text = text.trim_end_matches('\r');
        writeln!(file, "{:4} {text}", began.elapsed().as_secs())
            .context("writing the console's file")?;
        if let Some(release) = text.strip_prefix("proof: kernel ") {
            release.clone_into(&mut run.release);
            inside = true;
        } else if let Some(code) = text.strip_prefix(DONE) {
            run.code = code.trim().parse().ok();
            inside = false;
        } else if inside {
            line(text);
            run.output.push(text.to_owned());
        }
    }
    child.wait().context("waiting for the emulator")?;
    Ok(run)
}

/// The end of a console, for when it went wrong.
pub fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).fold(String::new(), |mut all, line| {
        all.push_str("    ");
        all.push_str(line);
        all.push('\n');
        all
    })
}
