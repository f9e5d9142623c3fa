//! `cargo xtask run`: build the agent and put it in the foreground.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail};
use portolan_kit::{build, shell, tree};

/// Where the agent listens by default.
const ADDRESS: &str = "127.0.0.1:10062";
const ADDRESS_FLAG: &str = "--web.listen-address";

#[derive(clap::Args)]
pub struct Args {
    /// Passed on to `portolan agent`, after `--`
    #[arg(last = true)]
    agent: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let Args { agent } = args;
    if !shell::is_root() {
        bail!(
            "loading programs into the kernel needs root: run `cargo xtask run` as root \
             (for instance `sudo --preserve-env=PATH,HOME cargo xtask run`)"
        );
    }
    let binary = build::build()?;
    let program = tree::shown(&binary);
    let address = address(agent);
    println!();
    println!("  page      http://{address}/");
    println!("  metrics   http://{address}/metrics");
    println!("  terminal  {program} edges");
    println!("  stop      Ctrl-C");
    println!();
    // The agent takes this process over, so that signals reach it and no one else.
    let error = Command::new(&binary).arg("agent").args(agent).exec();
    Err(anyhow::Error::new(error).context(format!("starting {program}")))
}

/// The address given to the agent, in either spelling of the flag.
fn address(agent: &[String]) -> &str {
    let mut words = agent.iter();
    while let Some(word) = words.next() {
        if word == ADDRESS_FLAG {
            return words.next().map_or(ADDRESS, String::as_str);
        }
        if let Some(value) = word.strip_prefix(ADDRESS_FLAG).and_then(|rest| rest.strip_prefix('='))
        {
            return value;
        }
    }
    ADDRESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_shown_is_the_one_given_to_the_agent() {
        let check = |words: &[&str], expected| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(address(&words), expected, "{words:?}");
        };
        check(&[], ADDRESS);
        check(&["--pin"], ADDRESS);
        check(&["--web.listen-address", "[::1]:9"], "[::1]:9");
        check(&["--pin", "--web.listen-address=0.0.0.0:80"], "0.0.0.0:80");
        check(&["--web.listen-address"], ADDRESS);
    }
}
