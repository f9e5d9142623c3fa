//! What is enabled while the load runs.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::agent::Agent;
use crate::empty::Empty;
use crate::load::Load;
use crate::tool::Tool;

/// After something was started or stopped the kernel has work left (freed maps, RCU).
const PAUSE: Duration = Duration::from_millis(300);

/// A tool that saw the load prints at least a heading and one row.
const LEAST_LINES: usize = 2;

const COUNT: &str = "tracepoint:sock:inet_sock_set_state { @[args->newstate] = count(); }";

/// The system calls of requests, each timed: a minimal tracer of system calls.
const SYSTEM_CALLS: &str = "
tracepoint:syscalls:sys_enter_read, tracepoint:syscalls:sys_enter_write,
tracepoint:syscalls:sys_enter_writev, tracepoint:syscalls:sys_enter_recvfrom,
tracepoint:syscalls:sys_enter_sendto { @start[tid] = nsecs; }
tracepoint:syscalls:sys_exit_read, tracepoint:syscalls:sys_exit_write,
tracepoint:syscalls:sys_exit_writev, tracepoint:syscalls:sys_exit_recvfrom,
tracepoint:syscalls:sys_exit_sendto /@start[tid]/
{ @us = hist((nsecs - @start[tid]) / 1000); delete(@start[tid]); }
END { clear(@start); }";

/// A subject whose cost is compared with nothing attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Nothing, measured as if it were something: shows how far off this machine makes us.
    Control,
    /// The agent with its defaults.
    Portolan,
    /// The agent with `--no-requests`.
    NoRequests,
    /// Programs that do nothing on the agent's tracepoints.
    Empty,
    /// tcplife of libbpf-tools.
    TcpLife,
    /// tcpstates of libbpf-tools.
    TcpStates,
    /// bpftrace counting state changes in the kernel.
    Count,
    /// bpftrace timing system calls in the kernel.
    SystemCalls,
}

/// A subject that is switched on.
pub enum Running {
    Nothing,
    Agent(Agent),
    Empty(Empty),
    Tool(Tool),
}

impl Subject {
    /// Measured in every round.
    pub const CORE: [Self; 4] = [Self::Control, Self::Portolan, Self::NoRequests, Self::Empty];

    /// A subject whose effect is too large to need every round, if `load` triggers it at all.
    pub const fn peers(load: Load) -> &'static [Self] {
        match load {
            Load::Connections => &[Self::TcpLife, Self::TcpStates, Self::Count, Self::SystemCalls],
            Load::Requests | Load::Bulk => &[Self::SystemCalls],
            Load::Stream | Load::Binds | Load::FailedBinds => &[],
        }
    }

    /// How the tables call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "nothing (A/A control)",
            Self::Portolan => "portolan",
            Self::NoRequests => "portolan --no-requests",
            Self::Empty => "empty programs on the same hooks",
            Self::TcpLife => "tcplife",
            Self::TcpStates => "tcpstates",
            Self::Count => "bpftrace, state changes counted in the kernel",
            Self::SystemCalls => "bpftrace, system calls timed in the kernel",
        }
    }

    /// A one-word name for the column beside a figure.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Count => "bpftrace count",
            Self::SystemCalls => "bpftrace system calls",
            _ => self.as_str(),
        }
    }

    /// The program of another project that it needs.
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Control | Self::Portolan | Self::NoRequests | Self::Empty => None,
            Self::TcpLife => Some("tcplife"),
            Self::TcpStates => Some("tcpstates"),
            Self::Count | Self::SystemCalls => Some("bpftrace"),
        }
    }

    /// Whether it is another project's tool.
    pub fn is_peer(self) -> bool {
        self.program().is_some()
    }

    /// Enables it, and returns when it observes events.
    pub fn start(self, agent: &Path, directory: &Path) -> Result<Running> {
        let tool = |program: &str, arguments: &[&str]| {
            Tool::start(Command::new(program).args(arguments), directory).map(Running::Tool)
        };
        let running = match self {
            Self::Control => Running::Nothing,
            Self::Portolan => Running::Agent(Agent::start(agent, &[], directory)?),
            Self::NoRequests => Running::Agent(Agent::start(agent, &["--no-requests"], directory)?),
            Self::Empty => Running::Empty(Empty::attach()?),
            Self::TcpLife => tool("tcplife", &[])?,
            Self::TcpStates => tool("tcpstates", &[])?,
            Self::Count => tool("bpftrace", &["-e", COUNT])?,
            Self::SystemCalls => tool("bpftrace", &["-e", SYSTEM_CALLS])?,
        };
        sleep(PAUSE);
        Ok(running)
    }
}

impl Running {
    /// The processes whose CPU time is the subject's.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Self::Nothing | Self::Empty(_) => Vec::new(),
            Self::Agent(agent) => vec![agent.process()],
            Self::Tool(tool) => vec![tool.process()],
        }
    }

    /// Switches it off. A tool that saw nothing was not measured: an error.
    pub fn stop(self) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Empty(empty) => drop(empty),
            Self::Agent(agent) => agent.stop()?,
            Self::Tool(tool) => {
                if tool.stop()? < LEAST_LINES {
                    bail!("it ran but reported nothing");
                }
            }
        }
        sleep(PAUSE);
        Ok(())
    }
}
