//! `portolan agent --show-privileges`: the capabilities of this configuration on this host, and
//! why.

use std::fmt::Write;

use cli::{Output, print};
use serde::Serialize;

use crate::config::Config;
use crate::privileges::features::Span;
use crate::privileges::host::Host;
use crate::privileges::{Privileges, Use, seccomp};
use linux::capability::{Capability, CapabilitySet};

/// The JSON output.
#[derive(Serialize)]
struct Shown<'a> {
    /// Capabilities to grant at the start.
    start: Vec<Capability>,
    /// The capabilities that are kept.
    kept: Vec<Capability>,
    /// The purpose of each.
    uses: &'a [Use],
    /// How other system calls are treated.
    seccomp: &'static str,
    /// Number of system calls that the running agent may make.
    system_calls: usize,
}

pub(super) fn run(config: &Config, output: Output) -> anyhow::Result<()> {
    // As if everything were granted: the output lists what to grant.
    let privileges = Privileges::of(config, &Host::read(), Capability::ALL.into_iter().collect());
    let start: CapabilitySet = privileges.uses.iter().map(|one| one.capability).collect();
    let shown = Shown {
        start: start.named(),
        kept: privileges.kept.named(),
        uses: &privileges.uses,
        seccomp: config.seccomp.as_str(),
        system_calls: seccomp::allowed(),
    };
    match output {
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&shown)?)),
        Output::Text => print(&text(&shown)),
    }
}

fn text(shown: &Shown<'_>) -> String {
    let names = |list: &[Capability]| {
        let names: Vec<&str> = list.iter().map(|one| one.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "required at start:  {}", names(&shown.start));
    let _ = writeln!(text, "kept after startup: {}", names(&shown.kept));
    let _ = writeln!(
        text,
        "seccomp:            no_new_privs; {} system calls allowed, others: {}",
        shown.system_calls, shown.seccomp
    );
    let mut feature = "";
    for one in shown.uses {
        if one.feature != feature {
            let _ = writeln!(text, "\n{}", one.feature);
            feature = one.feature;
        }
        let span = match one.needed {
            Span::Start => "at start",
            Span::Always => "while it runs",
        };
        let _ = writeln!(text, "  {}, {span}", one.capability);
        let _ = writeln!(text, "    why:     {}", one.why);
        let _ = writeln!(text, "    without: {}", one.lost_without);
    }
    text
}
