//! An unprivileged user decides how long a read of its arguments takes. The agent reads those of
//! every interpreter, and must not wait for them.
//!
//! The arguments are in the memory of the process, which is locked while they are read. Here one
//! process reads the memory of another where that is a file of a file system that never answers
//! (FUSE), and the other one maps more memory: that waits for the reader, and all later readers
//! wait behind it.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::Agent;
use crate::facts::patience;
use crate::net;
use crate::scrape::Scrape;

/// The user id of `nobody`.
const USER: u32 = 1500;
/// The command name: the identity of an interpreter includes its arguments.
const NAME: &CStr = c"python3";
/// The agent waits half of it for arguments at its start (`pipeline/bootstrap.rs`).
const DELAY: Duration = Duration::from_secs(2);
/// Timeout for the agent to stop.
const END_WITHIN: Duration = Duration::from_secs(1);
/// A read that takes longer hangs.
const AT_ONCE: Duration = Duration::from_millis(300);
/// Of the file.
const SIZE: u64 = 4096;

/// Requests (include/uapi/linux/fuse.h).
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;

/// A file system of one file whose reads are never answered; it answers everything else.
struct FileSystem {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Two processes of that user. One listens; its arguments cannot be read to an end.
struct Tenant {
    pid: libc::pid_t,
    port: u16,
    _files: FileSystem,
    _folder: tempfile::TempDir,
}

/// The child's descriptors: the listener, the file system's, one to report its progress, one to
/// wait for permission to continue.
struct Given<'a> {
    descriptors: [RawFd; 4],
    file: &'a CStr,
    options: &'a CStr,
}

// === impl FileSystem ===

impl FileSystem {
    /// Answers requests that come through `device`; sends a message to `reads` for each request that it
    /// leaves unanswered.
    fn serve(device: File, reads: Sender<()>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || answer(device, &reads, &stopped));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for FileSystem {
    /// Without the device the kernel ends all requests.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut device: File, reads: &Sender<()>, stop: &AtomicBool) -> io::Result<()> {
    let mut request = vec![0; 128 << 10];
    let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)];
        if poll(&mut ready, Some(&pause))? == 0 {
            continue;
        }
        let read = match device.read(&mut request) {
            Ok(read) => read,
            // Not mounted yet.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(error),
        };
        let header = &request[..read.min(40)];
        let opcode = u32::from_ne_bytes(header[4..8].try_into().unwrap());
        let (error, body): (i32, Vec<u8>) = match opcode {
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            OPEN => (0, vec![0; 16]),
            READ => {
                let _ = reads.send(());
                continue;
            }
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(&header[8..16]);
        reply.extend(body);
        device.write_all(&reply)?;
    }
    Ok(())
}

/// `struct fuse_init_out`: version 7.23, nothing optional, writes of a page.
fn init() -> Vec<u8> {
    let fields = [7_u32, 23, 0, 0, 0, 4096, 1, 0];
    let mut body: Vec<u8> = fields.into_iter().flat_map(u32::to_ne_bytes).collect();
    body.resize(64, 0);
    body
}

/// `struct fuse_attr_out` of the file.
fn attributes() -> Vec<u8> {
    let long = [60_u64, 0, 1, SIZE, 8, 0, 0, 0];
    let short = [0_u32, 0, 0, libc::S_IFREG | 0o444, 1, USER, USER, 0, 4096, 0];
    let long = long.into_iter().flat_map(u64::to_ne_bytes);
    long.chain(short.into_iter().flat_map(u32::to_ne_bytes)).collect()
}

// === impl Tenant ===

impl Tenant {
    fn start(device: File) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        chown(folder.path(), Some(USER), Some(USER)).expect("giving a directory of ours away");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("a file to mount over");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let (mut said, say) = io::pipe().expect("a pipe");
        let (wait, mut go) = io::pipe().expect("a pipe");
        let options = format!("fd=4,rootmode=100000,user_id={USER},group_id={USER}");
        let given = Given {
            descriptors: [
                listener.as_raw_fd(),
                device.as_raw_fd(),
                say.as_raw_fd(),
                wait.as_raw_fd(),
            ],
            file: &c_string(&file),
            options: &CString::new(options).unwrap(),
        };
        // SAFETY: the child of a program with threads may only make system calls, and does.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: this is the child.
            unsafe { live(&given) }
        }
        assert!(pid > 0, "fork: {}", io::Error::last_os_error());
        let (reads, read) = mpsc::channel();
        let files = FileSystem::serve(device, reads);
        let port = net::port(&listener);
        let tenant = Self { pid, port, _files: files, _folder: folder };
        drop((listener, say, wait));
        let mut step = [0];
        let read_bytes = said.read(&mut step).expect("reading a pipe");
        assert_eq!((read_bytes, step), (1, [0]), "the step that failed in the child");
        read.recv_timeout(patience(Duration::from_secs(5))).expect("a read of the file");
        go.write_all(&[1]).expect("writing into a pipe");
        let began = Instant::now();
        while !tenant.hangs() {
            assert!(began.elapsed() < patience(DELAY), "its arguments can be read");
        }
        tenant
    }

    /// Whether a read of its arguments hangs. The reader is left behind until the process ends.
    fn hangs(&self) -> bool {
        let path = format!("/proc/{}/cmdline", self.pid);
        let (answer, answered) = mpsc::channel();
        thread::spawn(move || answer.send(fs::read(path)));
        matches!(answered.recv_timeout(patience(AT_ONCE)), Err(RecvTimeoutError::Timeout))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // SAFETY: touches no memory; the child was not waited for, so the number is its own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let pid = self.pid;
        // It ends when the file system has.
        thread::spawn(move || {
            // SAFETY: as above, and nothing is written.
            unsafe { libc::waitpid(pid, null_mut(), 0) }
        });
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

/// The body of the child; it reports 0, or the step that failed.
///
/// # Safety
/// Only for the child of a fork.
unsafe fn live(given: &Given<'_>) -> ! {
    let Given { descriptors, file, options } = given;
    let die_with_parent = || {
        // SAFETY: takes no memory.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into() }
    };
    // SAFETY: system calls on our own descriptors and memory.
    unsafe {
        // Descriptors of the parent are closed: other tests wait for the ends of theirs.
        for (from, to) in descriptors.iter().zip(1020..) {
            libc::dup2(*from, to);
        }
        for (from, to) in (1020..1024).zip(3..) {
            libc::dup2(from, to);
        }
        libc::syscall(libc::SYS_close_range, 7, u32::MAX, 0);
        let root = c"/".as_ptr();
        let mut byte = 0_u8;
        let steps: [&mut dyn FnMut() -> libc::c_long; 11] = [
            &mut || libc::unshare(libc::CLONE_NEWNS).into(),
            &mut || {
                let flags = libc::MS_REC | libc::MS_PRIVATE;
                libc::mount(null(), root, null(), flags, null()).into()
            },
            &mut || {
                let (kind, flags) = (c"fuse".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV);
                libc::mount(kind, file.as_ptr(), kind, flags, options.as_ptr().cast()).into()
            },
            // Else the file system would not end with its server.
            &mut || libc::close(4).into(),
            &mut || libc::syscall(libc::SYS_setgroups, 0, 0),
            &mut || libc::syscall(libc::SYS_setresgid, USER, USER, USER),
            &mut || libc::syscall(libc::SYS_setresuid, USER, USER, USER),
            &mut || libc::prctl(libc::PR_SET_DUMPABLE, 1).into(),
            &mut || libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()).into(),
            &mut || die_with_parent(),
            &mut || {
                let memory = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY);
                let mapped = libc::open(file.as_ptr(), libc::O_RDONLY);
                let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
                // The kernel requests the size only now.
                let mut attributes = std::mem::zeroed();
                let known = libc::fstat(mapped, &raw mut attributes);
                let page = libc::mmap(null_mut(), SIZE as usize, access, flags, mapped, 0);
                if memory < 0 || known != 0 || page == libc::MAP_FAILED {
                    return 1;
                }
                let child = libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
                if child == 0 {
                    die_with_parent();
                    let mut byte = 0_u8;
                    libc::pread(memory, (&raw mut byte).cast(), 1, page as libc::off_t);
                    libc::_exit(0);
                }
                libc::c_long::from(child < 0)
            },
        ];
        let say = |step: u8| {
            libc::write(5, (&raw const step).cast(), 1);
        };
        for (step, number) in steps.into_iter().zip(1..) {
            if step() != 0 {
                say(number);
                libc::_exit(1);
            }
        }
        say(0);
        libc::read(6, (&raw mut byte).cast(), 1);
        let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(null_mut(), SIZE as usize, access, flags, -1, 0);
        loop {
            libc::pause();
        }
    }
}

/// A file system to be mounted; none where users have none.
fn device() -> Option<File> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &device {
        println!("SKIPPED: no file systems of users here (/dev/fuse: {error})");
    }
    device.ok()
}

#[test]
fn of_many_processes_of_a_user_that_never_show_their_arguments_few_are_waited_for() {
    needs_kernel!();
    const MANY: usize = 8;
    // Those that began before the first took long: as many as there are threads.
    const WAITED_FOR: u64 = 3;
    let mut tenants = Vec::new();
    for _ in 0..MANY {
        let Some(device) = device() else { return };
        tenants.push(Tenant::start(device));
    }
    let agent = Agent::start();
    let stuck = |now: &Scrape| now.sum("portolan_probes_stuck", &[]);
    agent.eventually(true, |now| stuck(now) > 0);
    // Twice as long as one is waited for.
    let began = Instant::now();
    while began.elapsed() < patience(DELAY * 2) {
        let now = stuck(&agent.scrape());
        assert!(now <= WAITED_FOR, "{now} threads wait");
        thread::sleep(Duration::from_millis(200));
    }
    // Names of others are found meanwhile.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join(format!("shop{}.py", std::process::id()));
    let code = "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\n\
                print(s.getsockname()[1], flush=True)\ntime.sleep(60)\n";
    fs::write(&script, code).expect("a script");
    let mut command = Command::new("python3");
    // So that the kernel half has not seen all of its arguments.
    command.args(["-W", &format!("ignore:{}", "x".repeat(300))]).arg(&script);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("python3");
    let mut port = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    output.read_line(&mut port).expect("a port");
    let name = script.file_name().and_then(|name| name.to_str()).expect("a name");
    let labels = [("service", name), ("port", port.trim())];
    agent.eventually(1, |now| now.sum("portolan_port_listeners", &labels));
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    agent.stop();
    drop(tenants);
}

#[test]
fn a_process_that_never_shows_its_arguments_delays_neither_start_nor_end() {
    needs_kernel!();
    let Some(device) = device() else { return };
    let settings = [("seccomp", "enforce")];
    let began = Instant::now();
    Agent::with(&settings).stop();
    let ordinary = began.elapsed();

    let tenant = Tenant::start(device);
    let began = Instant::now();
    let agent = Agent::with(&settings);
    let took = began.elapsed();
    assert!(took < patience(ordinary * 2 + DELAY), "it took {took:?} to start, not {ordinary:?}");
    let port = tenant.port.to_string();
    let labels = [("service", "python3"), ("port", &port)];
    agent.eventually(1, |now| now.sum("portolan_port_listeners", &labels));
    agent.eventually(true, |now| now.sum("portolan_probes_stuck", &[]) > 0);
    let (code, said) = agent.get("/healthz").expect("an answer");
    assert!(code == 200 && said.contains("stuck in a process"), "{code} {said}");
    assert!(agent.log().contains("could not be read within"), "{}", agent.log());

    let began = Instant::now();
    agent.stop();
    assert!(began.elapsed() < patience(END_WITHIN), "it took {:?} to end", began.elapsed());
    drop(tenant);
}
