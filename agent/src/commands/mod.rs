//! The command line: `portolan agent`, configuration and manual, and the commands of crate `cli`
//! for a running agent.
//!
//! Every error is one sentence with its fix on standard error. docs/commands.md lists the exit
//! codes.

mod agent;
mod config;
mod log;
mod manual;
mod overrides;
mod privileges;
mod segments;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::{Class, Outcome};

use crate::config::{Config, ConfigError};

const ABOUT: &str = "Observe every TCP connection of this host by service: who talks to whom, how often, how fast, and what fails";

const EXAMPLES: &str = "\
Examples:
  portolan agent                                   start the agent; metrics at http://127.0.0.1:10062/metrics
  portolan agent --web.listen-address 0.0.0.0:10062 --log.format json
  portolan edges                                   who talks to whom, as a table, and what fails and why
  portolan edges --role client --sort p99          slowest outgoing calls of this host first
  portolan edges --output json | jq '.edges[] | select(.connects.refused)'
  portolan diagnose gateway catalog                what is wrong between two services, and where
  portolan ports                                   ports and the processes that hold them
  portolan ports conflicts --since 1h              failed binds of the last hour, the cause and the fix
  portolan ports reserve 5432 --for postgres       reserve a port for a service
  portolan ports free --near 8080                  find a free port
  portolan services                                services with ports and health
  portolan map                                     service graph of the last minute, as a tree
  portolan balance                                 is load spread evenly over backends?
  portolan segments violations                     connections that the segment rules do not allow
  portolan policy generate --for nftables          a default deny with what was observed
  portolan check                                   what is wrong on this host, and how to fix it
  portolan status                                  what the agent sees, what it cannot see, what it dropped
  portolan status --url https://node7:10062 --ca-file ca.pem --user ann --password-file pw
  portolan serve --from incident.json.gz           the page of a snapshot, at http://127.0.0.1:10063
  portolan config check --config portolan.toml     validate a configuration file
  portolan config show > portolan.toml             a file to start from
  portolan agent --show-privileges                 required capabilities, for how long, and why

Every setting is a flag, an environment variable and a key of the configuration file; `portolan
config show` lists the keys. Flags win over the environment, the environment over the file.

Exit codes: 0 done; 1 failed, or a problem was found (by check or diagnose, by others with
--exit-code); 2 invalid command line or configuration; 3 the agent cannot be reached or does not answer.";

/// Exit codes: what was asked for is done.
pub const DONE: u8 = 0;
/// It failed; or there are findings, and `--exit-code` was given or the command looks for them.
pub const FAILED: u8 = 1;
/// The command line or the configuration is invalid.
pub const INVALID: u8 = 2;
/// The agent cannot be reached, or does not answer; or too little is known.
pub const UNREACHED: u8 = 3;

#[derive(Debug, Parser)]
#[command(name = "portolan", version, about = ABOUT, after_long_help = EXAMPLES, after_help = "Examples: portolan help")]
#[command(arg_required_else_help = true, infer_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent in the foreground until SIGTERM or SIGINT.
    #[command(long_about = agent::ABOUT, after_long_help = agent::EXAMPLES)]
    Agent(agent::AgentArgs),
    /// Validate or print the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    #[command(flatten)]
    Ask(Box<cli::Command>),
    /// Watch what is wrong on one host or several, worst first, and why.
    #[cfg(feature = "top")]
    Top(Box<tui::TopArgs>),
    /// Serve the page of an agent at another place, or of a snapshot.
    #[command(long_about = serve::ABOUT, after_long_help = serve::EXAMPLES)]
    Serve(Box<serve::ServeArgs>),
    /// Generate man pages.
    #[command(after_long_help = manual::PAGES_EXAMPLES)]
    Man(manual::PagesArgs),
    /// Generate shell completions.
    #[command(after_long_help = manual::COMPLETIONS_EXAMPLES)]
    Completions(manual::CompletionsArgs),
}

/// Runs the command line; `start` runs the agent and returns when it has been stopped.
pub fn run(start: impl FnOnce(&Config) -> anyhow::Result<()>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are "errors" of clap that go to standard output with exit code 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { INVALID } else { DONE });
        }
    };
    let result = match cli.command {
        Command::Ask(command) => command.run(segments::read),
        #[cfg(feature = "top")]
        Command::Top(arguments) => tui::run(&arguments),
        Command::Agent(arguments) => agent::run(&arguments, start).map(done),
        Command::Config(command) => config::run(&command).map(done),
        Command::Serve(arguments) => serve::run(&arguments).map(done),
        Command::Man(arguments) => manual::pages(&arguments).map(done),
        Command::Completions(arguments) => manual::completions(&arguments).map(done),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::from(DONE),
        Ok(Outcome::Found) => ExitCode::from(FAILED),
        Ok(Outcome::Incomplete) => ExitCode::from(UNREACHED),
        Err(error) => {
            // If standard error is closed the message is lost.
            let _ = writeln!(io::stderr(), "portolan: {error:#}");
            ExitCode::from(code(&error))
        }
    }
}

fn done((): ()) -> Outcome {
    Outcome::Done
}

/// The exit code of an error.
fn code(error: &anyhow::Error) -> u8 {
    match cli::class(error) {
        Some(Class::Usage) => INVALID,
        Some(Class::Unreached) => UNREACHED,
        None if error.is::<ConfigError>() => INVALID,
        Some(Class::Refused) | None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::settings::SETTINGS;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_the_agent_names_every_flag_and_variable() {
        let mut command = Cli::command();
        let agent = command.find_subcommand_mut("agent").expect("a subcommand");
        let help = agent.render_long_help().to_string();
        for setting in SETTINGS {
            assert!(help.contains(&format!("--{}", setting.flag.name())), "{}", setting.key);
            assert!(help.contains(&setting.env()), "{}", setting.key);
        }
        assert!(help.contains("PORTOLAN_CONFIG"));
    }

    #[test]
    fn the_examples_parse() {
        for line in EXAMPLES.lines().filter_map(|line| line.strip_prefix("  portolan ")) {
            let line = line.split(['|', '>']).next().unwrap_or_default();
            let words = line.split("  ").next().unwrap_or_default().split_whitespace();
            let parsed = Cli::try_parse_from(["portolan"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }
}
