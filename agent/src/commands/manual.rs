//! `portolan man` and `portolan completions`: generated from the definitions that parse the command
//! line. Packages contain their output.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use cli::print;

use super::Cli;

pub(super) const PAGES_EXAMPLES: &str = "\
Examples:
  portolan man | man -l -
  portolan man --directory /usr/local/share/man/man1";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  portolan completions bash > /usr/share/bash-completion/completions/portolan
  portolan completions zsh > /usr/share/zsh/vendor-completions/_portolan
  portolan completions fish > /usr/share/fish/vendor_completions.d/portolan.fish";

#[derive(Debug, Args)]
pub(super) struct PagesArgs {
    /// Write a page for each command into this directory, which must exist [default: the first page
    /// to standard output]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn pages(arguments: &PagesArgs) -> anyhow::Result<()> {
    let PagesArgs { directory } = arguments;
    match directory {
        Some(directory) => write_pages(directory),
        None => print(&page()?),
    }
}

pub(super) fn completions(arguments: &CompletionsArgs) -> anyhow::Result<()> {
    print(&completed(arguments.shell)?)
}

fn completed(shell: Shell) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "portolan", &mut text);
    String::from_utf8(text).context("making the completions")
}

/// The first page.
fn page() -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text)?;
    String::from_utf8(text).context("making a manual page")
}

/// `portolan.1`, `portolan-agent.1` and so on.
fn write_pages(directory: &Path) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("writing manual pages into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::settings::SETTINGS;

    #[test]
    fn every_command_has_a_page_and_every_setting_is_on_the_agents() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        for below in Cli::command().get_subcommands() {
            let text = read(&format!("portolan-{}.1", below.get_name()));
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        assert!(read("portolan.1").contains("portolan\\-agent(1)"));
        assert!(read("portolan-ports-reserve.1").contains(".SH OPTIONS"));
        // In roff a literal hyphen is escaped.
        let agent = read("portolan-agent.1").replace("\\-", "-");
        for setting in SETTINGS {
            assert!(agent.contains(&format!("--{}", setting.flag.name())), "{}", setting.key);
        }
    }

    #[test]
    fn completions_know_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completed(shell).unwrap();
            for word in ["conflicts", "web.listen-address", "show-privileges"] {
                assert!(text.contains(word), "{shell}: no {word}");
            }
        }
    }
}
