//! The command line: `portolan agent`, and the commands that talk to a running one.
//!
//! Every error is one sentence with its mend on standard error. Exit codes: 0 done, 1 failed, 2
//! the command line or the configuration is wrong.

mod agent;
mod balance;
mod config;
mod edges;
mod human;
mod log;
mod manual;
mod map;
mod overrides;
mod ports;
mod privileges;
mod segments;
mod services;
mod status;
mod table;
mod target;
mod watch;
mod window;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError};

const ABOUT: &str = "See every TCP connection of this host, by service: who talks to whom, how often, how fast, and what fails";

const EXAMPLES: &str = "\
Examples:
  portolan agent                                   start it; metrics at http://127.0.0.1:10062/metrics
  portolan agent --web.listen-address 0.0.0.0:10062 --log.format json
  portolan edges                                   who talks to whom, as a table
  portolan edges --role client --sort p99          the slowest calls of this host's services first
  portolan edges --output json | jq '.edges[] | select(.connects.refused)'
  portolan ports                                   who has which port
  portolan ports conflicts --since 1h              who wanted a port and did not get it, why, and the mend
  portolan ports reserve 5432 --for postgres       keep a port for a service
  portolan ports free --near 8080                  a port that nobody has
  portolan services                                services, where they are and how well
  portolan map --window 1m                         the same as a tree, of the last minute
  portolan balance                                 do the backends of a service get what is due?
  portolan segments violations                     who connects to whom although it is not allowed
  portolan status                                  what is seen, what is not and why, what was lost
  portolan config check --config portolan.toml     is this file valid, and what would it mean?
  portolan config show > portolan.toml             a file to start from
  portolan agent --show-privileges                 which capabilities it takes, for how long, and why

Every flag of `portolan agent` is also an environment variable and a key of the configuration
file; `portolan agent --help` names them. Flags win over the environment, the environment over
the file.";

#[derive(Debug, Parser)]
#[command(name = "portolan", version, about = ABOUT, after_long_help = EXAMPLES, after_help = "More, with examples: portolan help")]
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
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show who talks to whom, from a running agent.
    Edges(edges::EdgesArgs),
    /// Show who has which port and who wanted one and did not get it; keep ports for services and
    /// hand out free ones.
    Ports(ports::PortsArgs),
    /// Show services, where they are and how well; name those that nothing else can name.
    Services(services::ServicesArgs),
    /// Draw who talks to whom, from a running agent.
    Map(map::MapArgs),
    /// Show how the load of services spreads over their backends.
    Balance(balance::BalanceArgs),
    /// Show which segments of the network connect, and which may.
    Segments(segments::SegmentsArgs),
    /// Show what a running agent sees, what it cannot see and why, and what it lost.
    Status(target::Target),
    /// Write the manual pages.
    #[command(after_long_help = manual::PAGES_EXAMPLES)]
    Man(manual::PagesArgs),
    /// Write what a shell needs to complete command lines.
    #[command(after_long_help = manual::COMPLETIONS_EXAMPLES)]
    Completions(manual::CompletionsArgs),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the agent's JSON.
    Json,
}

/// Runs the command line; `start` runs the agent and returns when it has been stopped.
pub fn run(start: impl FnOnce(&Config) -> anyhow::Result<()>) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are "errors" that go to standard output and are no failure.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Command::Agent(arguments) => agent::run(&arguments, start),
        Command::Config(command) => config::run(&command),
        Command::Edges(arguments) => edges::run(&arguments),
        Command::Ports(arguments) => ports::run(&arguments),
        Command::Services(arguments) => services::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
        Command::Balance(arguments) => balance::run(&arguments),
        Command::Segments(arguments) => segments::run(&arguments),
        Command::Status(target) => status::run(&target),
        Command::Man(arguments) => manual::pages(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "portolan: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("writing to standard output"))
        }
        _ => Ok(()),
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
