//! What an executor becomes if a photo takes it over: it speaks the executor's protocol, has the executor's sandbox, and does what it is
//! told by the name of the task's dataset. Each attack is answered by "refused: ..." or "done: ...". `tests/hostile_executor.rs` starts it
//! as the executor of a real worker.
#![allow(unsafe_code, reason = "an attacker keeps no rule; each block states what it does")]

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::FileExt as _, net::UnixStream},
    },
    process::{self, Command},
    thread,
};

use prost::Message;
use sortinghat_proto::{
    ObjectRef,
    executor::v1::{ExecutorCommand, ExecutorReport, Ready, executor_command, executor_report::Report},
    v1::{TaskOutcome, TaskSucceeded, task_outcome::Outcome},
};
use sortinghat_worker::{
    executor::{
        sandbox::{Sockets, confine},
        take_sockets,
    },
    objects::{PublishedWeights, TenantObjects},
};

fn main() {
    let is_confined = env::args().skip_while(|argument| argument != "--sandbox").nth(1).is_none_or(|on| on == "on");
    let (mut socket, objects) = take_sockets().expect("a worker starts this");
    if is_confined {
        confine(&env::temp_dir(), Sockets::None, objects.as_raw_fd() + 1).expect("this machine can confine it");
    }
    let raw = objects.try_clone().expect("a descriptor");
    let objects = TenantObjects::over(objects).expect("a thread");
    let ready = Ready {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: "cpu".to_owned(),
        threads: 1,
        ..Ready::default()
    };
    tell(&mut socket, Report::Ready(ready));
    loop {
        let mut length = [0; 4];
        if socket.read_exact(&mut length).is_err() {
            return;
        }
        let mut command = vec![0; u32::from_be_bytes(length) as usize];
        socket.read_exact(&mut command).expect("a whole command");
        let command = ExecutorCommand::decode(command.as_slice()).expect("a command").command;
        let Some(executor_command::Command::Start(task)) = command else { continue };
        let (attack, target) = task.dataset_name.split_once(' ').unwrap_or((&task.dataset_name, ""));
        let summary = match attempt(attack, target, &objects, &raw, &mut socket) {
            Ok(done) => format!("done: {done}"),
            Err(error) => format!("refused: {error}"),
        };
        let succeeded = TaskSucceeded { manifest: Some(ObjectRef::of(b"forged").into()), summary };
        tell(&mut socket, Report::Finished(TaskOutcome { outcome: Some(Outcome::Succeeded(succeeded)) }));
    }
}

fn tell(socket: &mut UnixStream, report: Report) {
    let report = ExecutorReport { report: Some(report) }.encode_to_vec();
    let length = u32::try_from(report.len()).expect("short").to_be_bytes();
    // A worker that has had enough closes the socket.
    let _ = socket.write_all(&[&length, report.as_slice()].concat());
}

/// Tries one attack; what it has gained, or what the system said.
fn attempt(
    attack: &str,
    target: &str,
    objects: &TenantObjects,
    raw: &OwnedFd,
    socket: &mut UnixStream,
) -> Result<String, String> {
    let worker = nix::unistd::getppid();
    let said = |error: io::Error| error.to_string();
    match attack {
        "environment" => {
            let names: Vec<String> = env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            Ok(names.join("\n"))
        }
        "read" => fs::read(target).map(|content| format!("{} bytes of {target}", content.len())).map_err(said),
        "write" => fs::write(target, "mine").map(|()| format!("wrote {target}")).map_err(said),
        "worker-environment" => fs::read(format!("/proc/{worker}/environ"))
            .map(|content| String::from_utf8_lossy(&content).into_owned())
            .map_err(said),
        "worker-memory-file" => {
            let memory = File::options().read(true).write(true).open(format!("/proc/{worker}/mem")).map_err(said)?;
            let byte = memory.read_at(&mut [0], first_mapping(worker.as_raw())?);
            byte.map(|bytes| format!("{bytes} byte of the worker's memory")).map_err(said)
        }
        "worker-memory-call" => read_memory(worker.as_raw()),
        // SAFETY: no memory is read or written.
        "ptrace" => result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, worker.as_raw(), 0, 0) } as isize)
            .map(|_| "traced the worker".to_owned()),
        "kill" => nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGWINCH)
            .map(|()| "signalled the worker".to_owned())
            .map_err(|error| error.to_string()),
        "limits" => limit_worker(worker.as_raw()),
        "connect" => TcpStream::connect(target).map(|_| format!("connected to {target}")).map_err(said),
        "send" => UdpSocket::bind("127.0.0.1:0").map(|_| "bound a socket".to_owned()).map_err(said),
        "unix-socket" => UnixStream::pair().map(|_| "made sockets".to_owned()).map_err(said),
        "exec" => Command::new("/bin/true").status().map(|status| format!("ran /bin/true: {status}")).map_err(said),
        "replace" => {
            let program = CString::new("/bin/true").expect("no nul");
            Err(nix::unistd::execv(&program, &[program.as_c_str()])
                .expect_err("it returns only if it fails")
                .to_string())
        }
        "fork" => fork(),
        "call" => call(target),
        "threads" => start_threads(),
        "fill" => fill_disk().map_err(said),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "object" => {
            let object: ObjectRef = serde_json::from_str(target).map_err(|error| error.to_string())?;
            let read = objects.read(&object).map_err(|error| error.to_string())?;
            Ok(format!("{} bytes of another tenant", read.len()))
        }
        "hub" => objects.weights(PublishedWeights::Hub(target)).map(|(origin, _)| origin).map_err(|e| e.to_string()),
        "own-object" => {
            let stored = objects.put("mine").map_err(|error| error.to_string())?;
            objects.read(&stored).map(|read| format!("{} bytes of mine", read.len())).map_err(|e| e.to_string())
        }
        "garbage-request" => {
            nix::unistd::write(raw, &[0xff; 64]).map_err(|error| error.to_string())?;
            thread::park();
            Ok("nobody minded".to_owned())
        }
        "garbage-report" => {
            socket.write_all(&[0xff; 64]).map_err(said)?;
            thread::park();
            Ok("nobody minded".to_owned())
        }
        unknown => Err(format!("no attack {unknown:?}")),
    }
}

/// Starts threads until somebody ends this process.
fn start_threads() -> ! {
    loop {
        let _ = thread::Builder::new().stack_size(16 << 10).spawn(|| {
            loop {
                thread::park()
            }
        });
    }
}

fn fill_disk() -> io::Result<String> {
    for number in 0.. {
        let mut file = File::create(env::temp_dir().join(format!("{number}")))?;
        file.write_all(&vec![1; 1 << 20])?;
        // The worker looks once a second; a disk is filled faster than that, but a test need not.
        thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Ok("filled the disk".to_owned())
}

fn first_mapping(process: i32) -> Result<u64, String> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).map_err(|error| error.to_string())?;
    let first = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(first, 16).map_err(|error| error.to_string())
}

fn read_memory(process: i32) -> Result<String, String> {
    // Where the worker's memory is, it may guess if it cannot look.
    let address = first_mapping(process).unwrap_or(0x40_0000);
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 1 };
    // SAFETY: one byte of this process is written.
    let read = unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    result(read).map(|bytes| format!("{bytes} byte of the worker's memory"))
}

fn limit_worker(process: i32) -> Result<String, String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is written here and read back there; it stays as it was.
    let got = unsafe { libc::prlimit(process, libc::RLIMIT_CORE, std::ptr::null(), &raw mut limit) };
    result(got as isize)?;
    // SAFETY: as above.
    let set = unsafe { libc::prlimit(process, libc::RLIMIT_CORE, &raw const limit, std::ptr::null_mut()) };
    result(set as isize).map(|_| "set a limit of the worker".to_owned())
}

fn fork() -> Result<String, String> {
    // SAFETY: the child ends at once.
    match unsafe { libc::fork() } {
        0 => process::abort(),
        child => result(child as isize).map(|child| {
            // SAFETY: it waits for its own child.
            unsafe { libc::waitpid(child as libc::pid_t, std::ptr::null_mut(), 0) };
            "made another process".to_owned()
        }),
    }
}

/// A system call by its number, with arguments that are harmless where it is allowed.
fn call(number: &str) -> Result<String, String> {
    let number: i64 = number.parse().map_err(|_| "no number".to_owned())?;
    // SAFETY: null pointers and zeros; whatever it is, the kernel checks them.
    result(unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) } as isize).map(|value| format!("returned {value}"))
}

fn result(value: isize) -> Result<isize, String> {
    if value < 0 { Err(io::Error::last_os_error().to_string()) } else { Ok(value) }
}
