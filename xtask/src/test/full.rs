//! `cargo xtask test --full`: the parts that take hours, one after the other, and a record of each.
//!
//! `.ci/run` covers what any change can break. These parts run on demand; docs/proof.md has a row
//! for each with the date, the commit and the versions of its last run, and tidy requires the rows.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use portolan_kit::{shell, summary, tree};

use super::balancers;
use crate::tool::Tool;
use crate::{check, fuzz, miri};

/// The page with the records, and their table in it.
pub const PAGE: &str = "docs/proof.md";
const HEADING: &str = "## Full runs\n";

/// A part of a full run.
pub struct Part {
    /// Its name on the command line and in the first column.
    pub name: &'static str,
    /// Programs whose versions are recorded, with the arguments that print them.
    programs: &'static [(&'static str, &'static str)],
    /// Runs it and returns a one-line summary.
    run: fn() -> Result<String>,
}

/// In the order of their length.
pub const PARTS: [Part; 10] = [
    Part {
        name: "reproducible",
        programs: &[("rustc", "+portolan-bpf --version")],
        run: || tool(Tool::Package, &["reproducible"]),
    },
    Part { name: "features", programs: &[], run: check::without_each_source },
    Part { name: "miri", programs: &[("rustc", "+nightly --version")], run: miri::miri },
    Part { name: "balancers", programs: &[("nginx", "-v")], run: balancers::run },
    Part { name: "packages", programs: &[("dockerd", "--version")], run: packages },
    Part { name: "fuzz", programs: &[], run: || fuzz::all("docs/fuzz.md") },
    Part {
        name: "e2e-alerts",
        programs: &[
            ("prometheus", "--version"),
            ("prometheus-alertmanager", "--version"),
            ("haproxy", "-v"),
            ("nginx", "-v"),
            ("psql", "--version"),
            ("redis-server", "--version"),
            ("node", "--version"),
        ],
        run: || tool(Tool::Demo, &["test"]),
    },
    Part {
        name: "e2e-diagnose",
        programs: &[
            ("haproxy", "-v"),
            ("nginx", "-v"),
            ("psql", "--version"),
            ("redis-server", "--version"),
            ("node", "--version"),
        ],
        run: || tool(Tool::Demo, &["diagnose"]),
    },
    Part {
        name: "soak",
        programs: &[("nginx", "-v"), ("wrk", "-v")],
        run: || tool(Tool::Soak, &["--minutes", "60", "--report", "docs/soak.md"]),
    },
    Part {
        name: "vm",
        programs: &[("qemu-system-x86_64", "--version"), ("qemu-system-aarch64", "--version")],
        run: || tool(Tool::Vm, &["--minutes", "120", "--table", "docs/kernels.md"]),
    },
];

/// Runs the named parts, or all of them; a failed part does not stop the next ones.
pub fn run(names: &[String]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| PARTS.iter().all(|part| part.name != **name)) {
        let known = PARTS.map(|part| part.name).join(", ");
        bail!("no part is called {name}: choose from {known}");
    }
    // Parts write into docs/, so uncommitted changes are looked for before the first starts.
    let commit = commit()?;
    let mut failed = Vec::new();
    for part in PARTS.iter().filter(|part| names.is_empty() || names.iter().any(|n| n == part.name))
    {
        portolan_kit::heading(part.name);
        let result = (part.run)();
        let shown = match &result {
            Ok(summary) => summary.clone(),
            Err(error) => {
                println!("{error:#}");
                failed.push(part.name);
                format!("**failed**: {error:#}")
            }
        };
        let row = row(&[part.name, &today()?, &commit, &shown, &versions(part.programs)]);
        let page = tree::root().join(PAGE);
        let text = fs::read_to_string(&page).context(PAGE)?;
        let text = with_record(&text, part.name, &row).context("docs/proof.md has no records")?;
        fs::write(&page, text).context(PAGE)?;
        println!("wrote the record into {PAGE}");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The parts that have no row in the page.
pub fn without_record(page: &str) -> impl Iterator<Item = &'static str> {
    let records = page.split_once(HEADING).map_or("", |(_, rest)| rest);
    let records = records.split("\n## ").next().unwrap_or_default();
    let has_row = |name: &str| records.lines().any(|line| line.starts_with(&first_cell(name)));
    let missing = PARTS.iter().map(|part| part.name).filter(move |name| !has_row(name));
    missing.collect::<Vec<_>>().into_iter()
}

/// The page with the row of the part replaced, or appended to the table.
fn with_record(page: &str, part: &str, row: &str) -> Option<String> {
    let (before, rest) = page.split_once(HEADING)?;
    let mut lines: Vec<&str> = rest.split('\n').collect();
    let within = lines.iter().position(|line| line.starts_with("## ")).unwrap_or(lines.len());
    let table = lines.get(..within)?;
    match table.iter().position(|line| line.starts_with(&first_cell(part))) {
        Some(at) => *lines.get_mut(at)? = row,
        None => lines.insert(table.iter().rposition(|line| line.starts_with('|'))? + 1, row),
    }
    Some(format!("{before}{HEADING}{}", lines.join("\n")))
}

fn first_cell(part: &str) -> String {
    format!("| {part} |")
}

/// A row of a Markdown table; bars are escaped.
fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| cell.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
        .collect();
    format!("| {} |", cells.join(" | "))
}

/// Runs a tool to its end and returns its summary.
fn tool(tool: Tool, arguments: &[&str]) -> Result<String> {
    let file = tempfile::NamedTempFile::new().context("making a file for the summary")?;
    let mut command = tool.command()?;
    command.current_dir(tree::root()).args(arguments);
    let ended = shell::loud(summary::expect(&mut command, file.path()));
    let summary = fs::read_to_string(file.path()).context("reading the summary")?;
    match ended {
        Ok(()) if summary.is_empty() => bail!("it printed no summary"),
        Ok(()) => Ok(summary),
        Err(error) if summary.is_empty() => Err(error),
        Err(_) => bail!("{summary}"),
    }
}

/// Image and packages with the agent as it is shipped.
fn packages() -> Result<String> {
    super::test(&super::Args { filter: super::PACKED.map(str::to_owned).to_vec(), full: false })?;
    Ok("their live tests passed with the agent as it is shipped".to_owned())
}

fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*"]).args(arguments).current_dir(tree::root());
        shell::output(&mut git)
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let changed = if changed.is_empty() { "" } else { " with changes" };
    Ok(format!("{}{changed}", commit.trim()))
}

fn today() -> Result<String> {
    let date = shell::output(Command::new("date").args(["--utc", "+%F"]))?;
    Ok(date.trim().to_owned())
}

/// The kernel's, rustc's and those of the programs.
fn versions(programs: &[(&str, &str)]) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let first = [format!("Linux {}", kernel.trim()), version("rustc", "--version")];
    let others = programs.iter().map(|(program, arguments)| version(program, arguments));
    first.into_iter().chain(others).collect::<Vec<_>>().join("; ")
}

/// The first line with a digit; some programs print it to standard error, or fail after it.
fn version(program: &str, arguments: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).current_dir(tree::root());
    // Variables that cargo sets for this program would select another toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    let Ok(output) = command.output() else { return format!("{program} is not installed") };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()));
    line.map_or_else(|| format!("{program}: no version"), |line| short(line.trim()))
}

/// Without the suffixes of packagers and build hosts.
fn short(line: &str) -> String {
    let ends = [" (", " Copyright"].into_iter().filter_map(|mark| line.find(mark));
    let end = ends.min().unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_end_matches(',').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Proof\n\n| soak | elsewhere |\n\n## Full runs\n\nProse.\n\n\
        | part | date |\n|---|---|\n| soak | old |\n\n## Other\n\n| vm | elsewhere |\n";

    #[test]
    fn a_record_replaces_the_one_of_its_part() {
        let page = with_record(PAGE, "soak", "| soak | new |").unwrap();
        assert_eq!(page, PAGE.replace("| soak | old |", "| soak | new |"));
    }

    #[test]
    fn the_first_record_of_a_part_ends_the_table() {
        let page = with_record(PAGE, "vm", "| vm | new |").unwrap();
        let expected = PAGE.replace("| soak | old |\n", "| soak | old |\n| vm | new |\n");
        assert_eq!(page, expected);
        assert_eq!(with_record("# Proof\n", "vm", "| vm | new |"), None);
    }

    #[test]
    fn parts_without_a_row_in_the_table_are_missing() {
        let missing: Vec<&str> = without_record(PAGE).collect();
        assert_eq!(
            missing,
            [
                "reproducible",
                "features",
                "miri",
                "balancers",
                "packages",
                "fuzz",
                "e2e-alerts",
                "e2e-diagnose",
                "vm"
            ]
        );
        assert_eq!(without_record("").count(), PARTS.len());
    }

    #[test]
    fn a_cell_ends_no_row() {
        assert_eq!(row(&["a", "b\n c | d"]), "| a | b c \\| d |");
    }

    #[test]
    fn versions_are_short() {
        assert_eq!(short("rustc 1.95.0 (59807616e 2026-04-14)"), "rustc 1.95.0");
        assert_eq!(short("wrk 4.1.0 [epoll] Copyright (C) 2012"), "wrk 4.1.0 [epoll]");
        assert!(version("rustc", "--version").starts_with("rustc 1."));
        assert_eq!(version("no-such-program", "-v"), "no-such-program is not installed");
    }
}
