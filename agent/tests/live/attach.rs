//! Programs that are attached after startup: to one cgroup, to one function of one file, and
//! detached with their handle. The loader is used directly.

use std::fs;
use std::hint::black_box;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::thread;

use linux::capability::{Capability, CapabilitySet};
use loader::attacher::{Attacher, Error};
use loader::load::{Kernel, Options};
use portolan::config::Seccomp;
use portolan::privileges::features::FEATURES;
use portolan::privileges::seccomp;

use crate::facts;

const CGROUP: &str = "probe_cgroup";
const FUNCTION: &str = "probe_function";

#[test]
fn probe_cgroup_runs_for_the_sockets_of_one_cgroup_until_it_is_detached() {
    needs_kernel!();
    let Some(root) = cgroup_root() else {
        println!("SKIPPED: no cgroup2 file system is mounted");
        return;
    };
    let kernel = start(&root);
    let cgroup = Cgroup::make(&root, "sockets");
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let inside = cgroup.during(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let runs = || kernel.attacher.runs(CGROUP).unwrap().count;

    receive(&inside, 10);
    assert_eq!(runs(), 0, "loaded, and not attached");
    let attachment = kernel.attacher.attach_cgroup(CGROUP, &cgroup.folder).unwrap();
    receive(&inside, 100);
    receive(&outside, 1000);
    assert_eq!(runs(), 100, "one run for each packet of the cgroup");
    drop(attachment);
    receive(&inside, 10);
    assert_eq!(runs(), 100, "detached");

    let again = kernel.attacher.attach_cgroup(CGROUP, &cgroup.folder).unwrap();
    receive(&inside, 10);
    assert_eq!(runs(), 110, "attached once more");
    drop(again);
    let error = kernel.attacher.attach_cgroup(CGROUP, &root.join("there-is-none")).unwrap_err();
    assert!(error.to_string().contains("there-is-none"), "{error}");
}

#[test]
fn probe_function_runs_for_the_calls_of_one_function_until_it_is_detached() {
    needs_kernel!();
    let kernel = start(&cgroup_root().unwrap_or_default());
    let runs = || kernel.attacher.runs(FUNCTION).unwrap().count;
    let (file, offset) = place_of(called);

    call(called, 10);
    assert_eq!(runs(), 0, "loaded, and not attached");
    let attachment = kernel.attacher.attach_function(FUNCTION, &file, offset).unwrap();
    call(called, 100);
    call(another, 1000);
    assert_eq!(runs(), 100, "one run for each call of the function");
    drop(attachment);
    call(called, 10);
    assert_eq!(runs(), 100, "detached");

    let error = kernel.attacher.attach_function(FUNCTION, Path::new("/none"), 0).unwrap_err();
    assert!(error.to_string().contains("/none"), "{error}");
    let error = kernel.attacher.attach_function(CGROUP, &file, offset).unwrap_err();
    assert!(matches!(error, Error::Target { .. }), "{error}");
    let error = kernel.attacher.attach_function("nothing", &file, offset).unwrap_err();
    assert!(matches!(error, Error::Unknown(_)), "{error}");
}

/// The capabilities in the row of `--show-privileges` suffice, and each is needed.
#[test]
fn attaching_after_the_start_takes_the_capabilities_of_its_row() {
    needs_kernel!();
    let Some(root) = cgroup_root() else {
        println!("SKIPPED: no cgroup2 file system is mounted");
        return;
    };
    let kernel = start(&root);
    let cgroup = Cgroup::make(&root, "rights");
    let attaching =
        ["operations of chosen services (protocols.services)", "attaching to functions"];
    let features = attaching.map(|name| {
        let row = FEATURES.iter().find(|feature| feature.name.starts_with(name));
        row.expect("a row")
    });
    let row = features.iter().flat_map(|feature| feature.needs).map(|need| need.capability);
    // There every call of bpf(2) takes it; that is a row of its own.
    let always = facts::kernel_is_before(5, 19).then_some(Capability::Bpf);
    let needed: Vec<Capability> = row.chain(always).collect();

    let attach = |kept: &[Capability]| {
        let kept: CapabilitySet = kept.iter().copied().collect();
        let attacher: &Attacher = &kernel.attacher;
        // Rights belong to a thread.
        thread::scope(|scope| {
            let confined = scope.spawn(|| {
                kept.leave_only().unwrap();
                // SAFETY: sets a flag of this thread; takes no pointers.
                assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
                seccomp::install(Seccomp::Enforce, true).unwrap();
                let (file, offset) = place_of(called);
                let cgroup = attacher.attach_cgroup(CGROUP, &cgroup.folder);
                let function = attacher.attach_function(FUNCTION, &file, offset);
                [cgroup, function].map(|result| match result {
                    Ok(_) => true,
                    Err(error) => {
                        println!("with {kept:?}: {error}");
                        false
                    }
                })
            });
            confined.join().unwrap()
        })
    };
    assert_eq!(attach(&needed), [true, true], "{needed:?}");
    let mut kept: Vec<Capability> = always.into_iter().collect();
    assert_eq!(attach(&kept), [false, false], "without any");
    kept.push(Capability::NetAdmin);
    assert_eq!(attach(&kept), [true, false], "the first is for cgroups");
}

/// The kernel half with the programs that are attached later.
fn start(cgroup_root: &Path) -> Kernel {
    Kernel::start(&Options {
        edges: 64,
        owners: 64,
        ring_bytes: 1 << 16,
        internal_ranges: Vec::new(),
        requests: true,
        responses: true,
        dns: true,
        lookups: true,
        pin: None,
        bpf_log: false,
        run_stats: true,
        cgroup_root: Some(cgroup_root.to_owned()),
        disabled: Vec::new(),
        later: vec![CGROUP, FUNCTION],
    })
    .unwrap()
}

/// Sends datagrams to a socket, one after the other.
fn receive(socket: &UdpSocket, count: usize) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..count {
        sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
    }
}

type Function = extern "C" fn(u64) -> u64;

#[inline(never)]
extern "C" fn called(number: u64) -> u64 {
    black_box(number).wrapping_mul(3)
}

#[inline(never)]
extern "C" fn another(number: u64) -> u64 {
    black_box(number).wrapping_mul(5)
}

fn call(function: Function, times: u64) {
    for number in 0..times {
        black_box(black_box(function)(number));
    }
}

/// The file that a function is in, and where.
fn place_of(function: Function) -> (PathBuf, u64) {
    let address = function as usize as u64;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = fields[0].split_once('-').unwrap();
        let within = (number(start)..number(end)).contains(&address);
        within.then(|| (fields[5].into(), address - number(start) + number(fields[2])))
    });
    found.expect("a function lies in a file")
}

/// Where the cgroup v2 tree is mounted.
pub(crate) fn cgroup_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// A cgroup of its own, removed when dropped.
pub(crate) struct Cgroup {
    pub(crate) folder: PathBuf,
    /// The processes of the cgroup that this one is in.
    home: PathBuf,
}

impl Cgroup {
    pub(crate) fn make(root: &Path, name: &str) -> Self {
        let folder = root.join(format!("portolan-attach-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        Self { folder, home: root.join(own).join("cgroup.procs") }
    }

    /// Runs `f` while this process is in the cgroup: a socket belongs to where it was made.
    pub(crate) fn during<T>(&self, f: impl FnOnce() -> T) -> T {
        let pid = std::process::id().to_string();
        fs::write(self.folder.join("cgroup.procs"), &pid).unwrap();
        let made = f();
        fs::write(&self.home, &pid).unwrap();
        made
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
