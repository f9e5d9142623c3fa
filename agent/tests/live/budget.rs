//! The cost of the agent in counts: program runs per side of a connection, instructions that the
//! verifier walks, system calls of a collection. Counts are the same on a slow or busy machine, so
//! they have fixed bounds; more is a regression. Times are measured by `cargo xtask bench`.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::{fs, thread};

use loader::btf::Btf;
use loader::parts::TCP_CAST;

use crate::agent::Agent;
use crate::bpftrace::Bpftrace;
use crate::facts::{self, KernelObjects};
use crate::namespace::{Connection, Pair};
use crate::net;

/// Other programs may connect meanwhile, which only adds: the minimum counts.
const ROUNDS: usize = 3;

type Runs = BTreeMap<String, u64>;

fn runs(agent: &Agent) -> Runs {
    let now = agent.scrape();
    let samples = now.matching("portolan_hook_runs_total", &[]);
    samples.map(|run| (run.label("hook").unwrap().to_owned(), run.value as u64)).collect()
}

/// Runs per operation of each program that runs for the operation, the least of some rounds.
fn runs_of(agent: &Agent, operations: u64, mut work: impl FnMut()) -> BTreeMap<String, f64> {
    let mut least: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let before = runs(agent);
        work();
        for (hook, after) in runs(agent) {
            // Runs caused by the agent itself, and those that expire pending connects.
            if ["iterate_sockets", "iterate_table", "expire_attempts", "bound_sockets"]
                .contains(&hook.as_str())
            {
                continue;
            }
            let grown = after - before.get(&hook).copied().unwrap_or(0);
            let each = grown as f64 / operations as f64;
            least.entry(hook).and_modify(|least| *least = least.min(each)).or_insert(each);
        }
    }
    least.retain(|_, each| *each >= 0.01);
    println!("runs per operation: {least:?}");
    least
}

fn sum(runs: &BTreeMap<String, f64>) -> f64 {
    runs.values().sum()
}

#[test]
fn a_connection_runs_programs_no_more_often_than_promised() {
    needs_kernel!();
    const CONNECTIONS: u64 = 300;
    let pair = Pair::new();
    let listener = pair.server.listen((pair.server.v4, 0));
    let port = net::port(&listener);
    for (requests, per_side) in [("false", 6.0), ("true", 10.0)] {
        let agent = Agent::with(&[("run_stats", "true"), ("requests", requests)]);
        let runs = runs_of(&agent, CONNECTIONS, || {
            for _ in 0..CONNECTIONS {
                let mut client = pair.client.connect((pair.server.v4, port)).unwrap();
                let mut server = net::accept(&listener);
                std::io::Write::write_all(&mut client, b"hello").unwrap();
                net::read_exactly(&mut server, 5).unwrap();
                std::io::Write::write_all(&mut server, b"hello").unwrap();
                net::read_exactly(&mut client, 5).unwrap();
                drop(client);
                assert_eq!(net::read_to_end(&mut server).unwrap(), 0);
            }
        });
        let each = sum(&runs) / 2.0;
        let per_side = per_side * f64::from(facts::programs_of_a_hook());
        assert!(each <= per_side, "requests {requests}: {each} runs per side of a connection");
        agent.stop();
    }
}

#[test]
fn a_request_runs_two_programs_and_a_packet_none() {
    needs_kernel!();
    const EXCHANGES: u64 = 1000;
    const BULK: usize = 64 << 20;
    let pair = Pair::new();
    let Connection { listener: _listener, mut client, mut server, .. } = pair.connection();
    let agent = Agent::with(&[("run_stats", "true")]);
    let exchanges = runs_of(&agent, EXCHANGES, || {
        thread::scope(|scope| {
            let mut server = server.try_clone().unwrap();
            scope.spawn(move || {
                for _ in 0..EXCHANGES {
                    net::read_exactly(&mut server, 10).unwrap();
                    std::io::Write::write_all(&mut server, &[b'x'; 20]).unwrap();
                }
            });
            (0..EXCHANGES).for_each(|_| net::ask(&mut client, 10, 20).unwrap());
        });
    });
    let each = sum(&exchanges) / 2.0;
    assert!(
        each <= 2.1 * f64::from(facts::programs_of_a_hook()),
        "{each} runs per side of a request"
    );
    agent.stop();

    // Without request timing nothing runs, however much is sent.
    let agent = Agent::with(&[("run_stats", "true"), ("requests", "false")]);
    let megabytes = (BULK >> 20) as u64;
    let bulk = runs_of(&agent, megabytes, || {
        thread::scope(|scope| {
            scope.spawn(|| net::read_exactly(&mut server, BULK).unwrap());
            std::io::Write::write_all(&mut client, &vec![b'x'; BULK]).unwrap();
        });
    });
    assert!(sum(&bulk) <= 1.0, "{bulk:?} runs per MiB");
    agent.stop();
}

/// The most instructions that the verifier may walk for each program, by the first 15 bytes of its
/// name: about a twentieth more than it walked on Linux 6.18 when the bound was set (which refuses
/// `inet_bind_sk` and `inet6_bind_sk`: theirs are those of `bind4`). All were set anew when the linker
/// began to copy and clear in words (decision 115), but for those that end in `fallback`, which are
/// there where programs can be preempted.
const VERIFIED: [(&str, u32); 30] = [
    ("inet_sock_set_s", 87_000),
    ("sk_data_ready", 28_000),
    ("sock_send_lengt", 41_000),
    // tcp_retransmit_skb and tcp_retransmit_synack.
    ("tcp_retransmit_", 300),
    ("tcp_send_reset", 5000),
    ("tcp_receive_res", 1700),
    ("iterate_sockets", 6_800),
    ("iterate_files", 5_300),
    ("iterate_table", 6_800),
    ("bootstrap_tcp", 24_000),
    ("bootstrap_udp", 2000),
    ("post_bind4", 10_500),
    ("post_bind6", 10_500),
    ("bind4", 16_500),
    ("bind6", 16_500),
    ("connect4", 17_000),
    ("connect6", 17_000),
    ("sendmsg4", 440),
    ("sendmsg6", 460),
    ("sock_release", 13_000),
    ("expire_attempts", 5000),
    ("bound_sockets", 1_200),
    ("bound_files", 1_200),
    ("inet_bind_sk", 16_500),
    ("inet6_bind_sk", 16_500),
    ("state_fallback", 100_300),
    ("ready_fallback", 14_600),
    ("send_fallback", 6_400),
    ("tx_rst_fallback", 7400),
    ("rx_rst_fallback", 930),
];

#[test]
fn no_program_takes_the_verifier_longer_than_it_did() {
    needs_kernel!();
    if facts::is_emulated() {
        println!("SKIPPED: the bounds are those of one kernel's verifier, and this is another one");
        return;
    }
    let agent = Agent::with(&[("names.dns", "true")]);
    let mut above = Vec::new();
    for id in KernelObjects::of(agent.pid()).programs {
        let Program { name, verified, .. } = program(id);
        println!("(\"{name}\", {verified}),");
        let bound = VERIFIED.iter().find(|(known, _)| *known == name).map(|(_, bound)| *bound);
        if bound.is_none_or(|bound| verified > bound) {
            above.push(format!("{name}: {verified}, the bound is {bound:?}"));
        }
    }
    assert!(above.is_empty(), "instructions that the verifier walks: {above:#?}");
    agent.stop();
}

/// The verifier exchanges the cast of a socket into a copy of a register.
#[test]
fn tcp_sockets_cost_no_call_where_the_kernel_casts() {
    needs_kernel!();
    let calls = |disabled: &str| {
        let agent = Agent::with(&[("disable_hooks", disabled)]);
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for id in KernelObjects::of(agent.pid()).programs {
            let Program { name, calls: more, .. } = program(id);
            // Names that only differ after the 15 bytes that the kernel keeps count together.
            *calls.entry(name).or_default() += more;
        }
        agent.stop();
        calls
    };
    let (casting, calling) = (calls(""), calls(&format!("part:{}", TCP_CAST.name)));
    let casts = Btf::of_running_kernel().unwrap().has_function("bpf_rdonly_cast");
    for hook in TCP_CAST.hooks {
        // Some kernels have functions in the place of tracepoints.
        let name = &hook[..hook.len().min(15)];
        let (Some(casting), Some(calling)) = (casting.get(name), calling.get(name)) else {
            println!("there is no program {hook} on this kernel");
            continue;
        };
        println!("{hook}: {casting} calls with the cast, {calling} without");
        if casts {
            assert!(casting < calling, "{hook}: {casting} calls with the cast, {calling} without");
        } else {
            assert_eq!(casting, calling, "{hook}");
        }
    }
}

/// A loaded program.
struct Program {
    name: String,
    /// How many instructions the verifier walked.
    verified: u32,
    /// Calls of helpers in it.
    calls: usize,
}

/// The program with this id.
fn program(id: u64) -> Program {
    const PROG_GET_FD_BY_ID: libc::c_long = 13;
    const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    let bpf = |command: libc::c_long, attr: &mut [u64]| {
        // SAFETY: `attr` is as the command demands, and what it points to outlives the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
        assert!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
        result as i32
    };
    // SAFETY: the kernel just gave us this descriptor.
    let program = unsafe { OwnedFd::from_raw_fd(bpf(PROG_GET_FD_BY_ID, &mut [id])) };
    // struct bpf_prog_info (include/uapi/linux/bpf.h): the length of the instructions after
    // verification is the second half of word 2, their address word 4, the name words 8 and 9,
    // verified_insns the first half of word 27.
    let mut instructions = vec![0u64; 1 << 17];
    let mut info = [0u64; 28];
    info[2] = (size_of_val(&instructions[..]) as u64) << 32;
    info[4] = instructions.as_mut_ptr() as u64;
    let sizes = (size_of_val(&info) as u64) << 32 | program.as_raw_fd() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut [sizes, (&raw mut info) as u64]);
    let name = [info[8].to_ne_bytes(), info[9].to_ne_bytes()].concat();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let written = (info[2] >> 32) as usize / size_of::<u64>();
    assert!(written <= instructions.len(), "program {id} has {written} instructions");
    // BPF_CALL, whose source register says that it is a helper, not a function.
    let is_helper_call = |instruction: &&u64| instruction.to_le_bytes()[..2] == [0x85, 0];
    Program {
        name: String::from_utf8_lossy(name).into_owned(),
        verified: info[27] as u32,
        calls: instructions[..written].iter().filter(is_helper_call).count(),
    }
}

/// System calls of a drain when nothing is new: the socket iteration, the ledger, the lists of sockets and of
/// failed binds. Tables are read through memory, so their number does not matter.
const MOST_SYSTEM_CALLS: u64 = 80;

#[test]
fn a_drain_makes_as_many_system_calls_however_many_edges_there_are() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("collection_interval", "1m")]);
    let few = match system_calls(&agent) {
        Ok(few) => few,
        Err(why) => {
            println!("SKIPPED: {why}");
            return;
        }
    };
    let listeners: Vec<_> = (0..150)
        .map(|_| {
            let listener = pair.server.listen((pair.server.v4, 0));
            drop(pair.client.connect((pair.server.v4, net::port(&listener))).unwrap());
            drop(net::accept(&listener));
            listener
        })
        .collect();
    let many = system_calls(&agent).unwrap();
    println!("system calls of a drain: {few}, with 300 edges more {many}");
    assert!(few <= MOST_SYSTEM_CALLS, "{few} system calls of a drain");
    assert!(many <= few + few / 4 + 8, "{many} system calls with 300 edges, {few} without");
    drop(listeners);
    agent.stop();
}

/// System calls of the core thread per collection, the minimum over some rounds of scrapes: now and
/// then it also reads the host's namespaces. The error says why they cannot be counted.
fn system_calls(agent: &Agent) -> Result<u64, String> {
    const SCRAPES: u64 = 20;
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let core = tasks.flatten().find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "core")
    });
    let core = core.expect("the core has a thread").file_name().into_string().unwrap();
    let drain = || assert_eq!(agent.get("/metrics").unwrap().0, 200);
    // The first collection reads what is new.
    drain();
    let script =
        format!("tracepoint:raw_syscalls:sys_enter /tid == {core}/ {{ @calls = count(); }}");
    let mut least = u64::MAX;
    for _ in 0..ROUNDS {
        let tool = Bpftrace::start(&script)?;
        (0..SCRAPES).for_each(|_| drain());
        let said = tool.end();
        let calls = said.iter().find_map(|line| line.strip_prefix("@calls: "));
        let calls = calls.unwrap_or_else(|| panic!("bpftrace counted nothing: {said:?}"));
        least = least.min(calls.trim().parse::<u64>().unwrap() / SCRAPES);
    }
    Ok(least)
}
