//! Starting other programs: silent while they succeed, with the end of their output if not.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, bail};

/// How much of a failed program's output is worth showing.
const LAST_LINES: usize = 25;

/// After this time without output, and each further such time, the command prints what it waits
/// for.
const REMIND_EVERY: Duration = Duration::from_secs(20);

/// So much of a command line names it; the rest are settings.
const NAMED_BY: usize = 90;

/// Runs a program without showing its output, unless it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The standard output of a program.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name_of(command);
    let output = captured(command)?;
    if !output.status.success() {
        bail!("`{name}` failed ({}):\n{}", output.status, last_lines(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The standard output of a program; empty if it is missing or failed.
pub fn probe(command: &mut Command) -> Option<String> {
    let output = captured(command).ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with its output shown.
pub fn loud(command: &mut Command) -> Result<()> {
    let name = name_of(command);
    let status = command.status().with_context(|| format!("starting `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// The cargo that runs this program, with the environment that it was started in: the variables it
/// adds for this package would make build scripts that read them (ring's) run once more.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let added = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if added.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::tree::root());
    command
}

/// Whether this process acts as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether a program of this name can be started.
pub fn exists(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The command line, for messages: without the paths of this machine.
pub fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| crate::tree::shown(Path::new(word))).collect::<Vec<_>>().join(" ")
}

fn captured(command: &mut Command) -> Result<Output> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let line = shortened(&name_of(command));
    let remind = |elapsed: Duration| {
        eprintln!("  {} s, still running: {line}", elapsed.as_secs());
    };
    let output = while_reminding(REMIND_EVERY, remind, || command.stdin(Stdio::null()).output());
    output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("`{name}` is not installed"),
        _ => anyhow::Error::new(error).context(format!("starting `{name}`")),
    })
}

/// The beginning of a command line, for those who wait.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(NAMED_BY) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// Runs `work`, and calls `remind` each time that `every` has passed.
fn while_reminding<T>(
    every: Duration,
    remind: impl Fn(Duration) + Sync,
    work: impl FnOnce() -> T,
) -> T {
    let began = Instant::now();
    let (finished, running) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let running = running;
            while running.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                remind(began.elapsed());
            }
        });
        let result = work();
        drop(finished);
        result
    })
}

/// The end of a failed program's output, without the addresses of package servers: they
/// belong to this machine, not to the failure.
fn last_lines(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LAST_LINES);
    let shown = lines.iter().skip(first).map(|line| {
        let words =
            line.split(' ').map(|word| if word.contains("://") { "<address>" } else { word });
        format!("    {}", words.collect::<Vec<_>>().join(" "))
    });
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_quoted_without_addresses() {
        let script = "echo one; echo Err: https://packages.invalid/x gone; exit 3";
        let error = quiet(Command::new("sh").args(["-c", script])).unwrap_err().to_string();
        assert!(error.contains("    one\n    Err: <address> gone"), "{error}");
    }

    #[test]
    fn a_command_is_shown_without_this_machine() {
        let mut command = Command::new("/usr/bin/cargo");
        command.arg("build").arg(crate::tree::root().join("agent"));
        assert_eq!(name_of(&command), "cargo build agent");
    }

    #[test]
    fn a_long_command_is_named_by_its_beginning() {
        assert_eq!(shortened("cargo build"), "cargo build");
        let long = shortened(&"é".repeat(NAMED_BY + 1));
        assert_eq!(long, format!("{}…", "é".repeat(NAMED_BY)));
    }

    #[test]
    fn what_takes_long_is_named_while_it_runs() {
        let reminded = std::sync::atomic::AtomicU32::new(0);
        let count = |_| {
            reminded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let sleep = |milliseconds| thread::sleep(Duration::from_millis(milliseconds));
        while_reminding(Duration::from_mins(1), count, || sleep(10));
        assert_eq!(reminded.load(std::sync::atomic::Ordering::Relaxed), 0);
        while_reminding(Duration::from_millis(50), count, || sleep(1000));
        assert!(reminded.load(std::sync::atomic::Ordering::Relaxed) >= 2);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = quiet(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "`no-such-program` is not installed");
    }
}
