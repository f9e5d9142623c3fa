//! Running test programs: their output is shown as it comes, and none may block the run.
//!
//! When no test has ended for [`LONGEST`], one is stuck: the state of its processes is shown and
//! they are killed. The test has failed, and [`End::Cut`] names it, so that the others can be run.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result};
use portolan_kit::report::Report;
use portolan_kit::shell;

/// No test takes so long, not even on a busy machine.
const LONGEST: Duration = Duration::from_mins(8);

/// How many functions of the kernel are shown of a task that waits.
const FRAMES: usize = 4;

/// Whether all requested tests have run.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// Each of these took its program down, or was stuck; those of the same program do not count.
    Cut(Vec<String>),
}

/// How a test program is started, and so what is killed when a test is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// By cargo, which continues with the next program.
    ByCargo,
    /// By this program.
    Directly,
}

/// Runs tests, shows their output as it comes, and sums up the results.
pub fn watch(report: &mut Report, command: &mut Command, started: Started) -> Result<End> {
    watch_showing(report, command, started, |line| println!("{line}"))
}

/// As [`watch`], with the output given to `show`, line by line.
pub fn watch_showing(
    report: &mut Report,
    command: &mut Command,
    started: Started,
    show: impl FnMut(&str),
) -> Result<End> {
    watch_for(report, command, started, LONGEST, show)
}

fn watch_for(
    report: &mut Report,
    command: &mut Command,
    started: Started,
    longest: Duration,
    mut show: impl FnMut(&str),
) -> Result<End> {
    let name = shell::name_of(command);
    let failed = report.failed;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    let pieces = pieces(child.stdout.take().context("no pipe to the tests")?);
    let (mut text, mut cut) = (Vec::new(), Vec::new());
    loop {
        match pieces.recv_timeout(longest) {
            Ok(piece) => text.extend(piece),
            Err(RecvTimeoutError::Timeout) => {
                // A compiler may print nothing for longer.
                if report.is_within_program() {
                    let minutes = longest.as_secs() / 60;
                    show(&format!("\nSTUCK: no test has ended for {minutes} minutes; it runs:"));
                    end_stuck(&child, started, &mut show);
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while let Some(at) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\n');
            if report.read(line) {
                show(line);
            }
            cut.extend(report.take_cut());
        }
    }
    report.read(&String::from_utf8_lossy(&text));
    report.end_of_program();
    cut.extend(report.take_cut());
    for test in &cut {
        show(&format!("FAILED: {test} did not end"));
    }
    let status = child.wait().with_context(|| format!("waiting for `{name}`"))?;
    // It did not compile, or its program could not start.
    if !status.success() && report.failed == failed {
        report.failed += 1;
    }
    Ok(if cut.is_empty() { End::Whole } else { End::Cut(cut) })
}

/// The output of a pipe, as it comes.
fn pieces(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = vec![0; 1 << 16];
        while let Ok(length @ 1..) = pipe.read(&mut piece) {
            if sender.send(piece.get(..length).unwrap_or_default().to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Shows what every process of a child waits for, and kills them; the child itself only if it is a
/// test program.
fn end_stuck(child: &Child, started: Started, show: &mut impl FnMut(&str)) {
    let mut below = descendants(child.id());
    if started == Started::Directly {
        below.insert(0, child.id());
    }
    for pid in &below {
        show(&state_of(*pid));
    }
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -KILL \"$@\"", "kill"]).args(below.iter().map(u32::to_string));
    // If one has exited meanwhile this fails, and the others are killed all the same.
    shell::probe(&mut kill);
}

/// The processes that a process started, and those that these did.
fn descendants(of: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let parent = fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| {
            // The name is in parentheses and may contain anything; state and parent follow it.
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
        });
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![of];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found.split_off(1)
}

/// A process, and where each of its tasks is in the kernel.
fn state_of(pid: u32) -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let command = read(format!("/proc/{pid}/cmdline")).replace('\0', " ");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tasks = tasks.map(|task| {
        let task = task.path();
        let name = read(format!("{}/comm", task.display()));
        let stack = read(format!("{}/stack", task.display()));
        // `[<0>] do_wait+0x5f/0x120`
        let frames = stack.lines().filter_map(|line| line.split(' ').nth(1)).take(FRAMES);
        format!("\n    {}: {}", name.trim(), frames.collect::<Vec<_>>().join(" < "))
    });
    format!(
        "  {pid} {}{}",
        portolan_kit::tree::shown(command.trim().as_ref()),
        tasks.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_kit::report::Verdict;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn tests_that_do_not_compile_count_as_a_failure() {
        let mut report = Report::default();
        assert_eq!(watch(&mut report, &mut shell("exit 1"), Started::ByCargo).unwrap(), End::Whole);
        assert_eq!(report.failed, 1);
    }

    #[test]
    fn a_test_that_is_stuck_is_killed_and_named_and_the_next_program_runs() {
        let script = "sh -c \"printf 'running 2 tests\ntest a ... ok\ntest b ... '; sleep 600; true\"
            printf '\nrunning 1 test\ntest c ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n'
            exit 1";
        let mut report = Report::default();
        let mut shown = String::new();
        let (longest, started) = (Duration::from_millis(500), Started::ByCargo);
        let end = watch_for(&mut report, &mut shell(script), started, longest, |line| {
            shown += line;
        })
        .unwrap();
        assert!(shown.contains("sleep 600") && shown.contains("FAILED: b did not end"), "{shown}");
        assert_eq!(end, End::Cut(vec!["b".to_owned()]));
        assert_eq!((report.passed, report.failed), (1, 1));
        assert_eq!(report.failures(), ["b"]);
        let verdicts = report.into_verdicts();
        assert_eq!(verdicts.get("b"), Some(&Verdict::Failed));
        assert_eq!(verdicts.get("a"), None, "it runs again");
    }

    #[test]
    fn a_program_that_is_stuck_is_killed_itself() {
        let script = "printf 'running 2 tests\ntest a ... ok\ntest b ... '; sleep 600; true";
        let mut report = Report::default();
        let longest = Duration::from_millis(300);
        let end =
            watch_for(&mut report, &mut shell(script), Started::Directly, longest, |_| {}).unwrap();
        assert_eq!(end, End::Cut(vec!["b".to_owned()]));
        assert_eq!(report.failures(), ["b"]);
    }

    #[test]
    fn a_compiler_may_be_silent() {
        let mut report = Report::default();
        let mut command = shell("sleep 0.5; echo 'test result: ok. 1 passed; 0 failed'");
        let (longest, started) = (Duration::from_millis(100), Started::ByCargo);
        let end = watch_for(&mut report, &mut command, started, longest, |_| {}).unwrap();
        assert_eq!(end, End::Whole);
        assert_eq!((report.passed, report.failed), (1, 0));
    }

    #[test]
    fn the_state_of_a_process_is_shown() {
        let mut child = shell("sleep 600 & wait").spawn().unwrap();
        thread::sleep(Duration::from_millis(200));
        let below = descendants(std::process::id());
        assert!(below.contains(&child.id()) && below.len() >= 2, "{below:?}");
        assert!(state_of(child.id()).contains("sleep 600"));
        end_stuck(&child, Started::ByCargo, &mut |_| {});
        child.wait().unwrap();
    }
}
