//! Which system calls an executor has, by seccomp. Any other is refused with EPERM, and does not kill.

use std::{collections::BTreeMap, io, process};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Which sockets a process may still open. Those that it has go on working in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None.
    None,
    /// Those of this machine, until [`close_sockets`](super::close_sockets): CUDA opens one when it is initialised.
    Local,
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// What computing, files, memory and threads need. Sockets are used here and opened nowhere.
const ALLOWED: &[c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Files. Landlock says which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_umask,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_flock,
    libc::SYS_memfd_create,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    // Threads and what they wait for.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Signals to itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_delete,
    libc::SYS_setitimer,
    libc::SYS_getitimer,
    // What it is and where it runs.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_capget,
    libc::SYS_prctl,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
];

/// The older forms of these, which only this processor still has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_pause,
    libc::SYS_alarm,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// `futex_waitv`, `map_shadow_stack`, `futex_wake`, `futex_wait`, `futex_requeue` and `mseal`, which have these numbers everywhere.
const NEWEST: &[c_long] = &[449, 453, 454, 455, 456, 462];
/// Calls that do not exist for an executor. The C library then takes older ones, whose arguments can be read here: `clone3`, and what came
/// after Linux 6.10.
const ABSENT: &[std::ops::RangeInclusive<c_long>] = &[libc::SYS_clone3..=libc::SYS_clone3, 463..=511];

/// What opens a socket, or makes it reachable.
const OPENING: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// Commands of `fcntl` that are about descriptors. Those by which signals are sent to other processes are none of them.
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];
/// `FIOSETOWN` and `SIOCSPGRP`, by which signals are sent to other processes; `TIOCSTI` and `TIOCLINUX`, which type into a terminal.
const NOT_IOCTL: [u64; 4] = [0x8901, 0x8902, 0x5412, 0x541c];
/// What makes a thread instead of a process, and what would take it to other namespaces.
const THREAD: u64 = libc::CLONE_THREAD as u64;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Filters the calls of this thread and of those that it starts.
pub(super) fn filter(sockets: Sockets) -> io::Result<()> {
    let absent: Rules = ABSENT.iter().cloned().flatten().map(|call| (call, Vec::new())).collect();
    let errno = |errno: libc::c_int| SeccompAction::Errno(errno.unsigned_abs());
    // Of two filters that refuse a call, the last one to come says how. So the second one allows what the first one calls absent.
    apply(absent, SeccompAction::Allow, errno(libc::ENOSYS), seccompiler::apply_filter)?;
    apply(allowed(sockets)?, errno(libc::EPERM), SeccompAction::Allow, seccompiler::apply_filter)
}

/// Takes away what [`Sockets::Local`] has left, from every thread.
pub(super) fn close_sockets() -> io::Result<()> {
    let opening: Rules = OPENING.iter().chain([&libc::SYS_seccomp]).map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    apply(opening, SeccompAction::Allow, refused, seccompiler::apply_filter_all_threads)
}

fn apply(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
    install: impl FnOnce(&[seccompiler::sock_filter]) -> Result<(), seccompiler::Error>,
) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture).map_err(io::Error::other)?;
    let program = BpfProgram::try_from(filter).map_err(io::Error::other)?;
    install(&program).map_err(io::Error::other)
}

fn allowed(sockets: Sockets) -> io::Result<Rules> {
    let absent = ABSENT.iter().cloned().flatten();
    let mut rules: Rules =
        ALLOWED.iter().chain(OLDER).chain(NEWEST).copied().chain(absent).map(|call| (call, Vec::new())).collect();
    let own = u64::from(process::id());
    let (is, is_not) = (SeccompCmpOp::Eq, SeccompCmpOp::Ne);
    let cases = |argument, values: &[u64]| -> io::Result<Vec<SeccompRule>> {
        values.iter().map(|value| rule(&[(argument, is.clone(), *value)])).collect()
    };
    rules.insert(libc::SYS_clone, vec![rule(&[(0, SeccompCmpOp::MaskedEq(THREAD | NAMESPACES), THREAD)])?]);
    rules.insert(libc::SYS_kill, cases(0, &[own])?);
    rules.insert(libc::SYS_tgkill, cases(0, &[own])?);
    rules.insert(libc::SYS_prlimit64, cases(0, &[0, own])?);
    rules.insert(libc::SYS_sched_setaffinity, cases(0, &[0, own])?);
    let commands: Vec<u64> = FCNTL.iter().map(|command| u64::from(command.unsigned_abs())).collect();
    rules.insert(libc::SYS_fcntl, cases(1, &commands)?);
    rules.insert(libc::SYS_ioctl, vec![rule(&NOT_IOCTL.map(|command| (1, is_not.clone(), command)))?]);
    if sockets == Sockets::Local {
        rules.insert(libc::SYS_socket, cases(0, &[libc::AF_UNIX.unsigned_abs().into()])?);
        // The first is the call that closes sockets later; the others are about sockets that only the second has made.
        rules.extend([libc::SYS_seccomp].iter().chain(&OPENING[2..]).map(|call| (*call, Vec::new())));
    }
    Ok(rules)
}

/// A call counts if each of these arguments compares like this. Their upper halves do not count for the kernel either.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions.iter().map(|(argument, compares, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, compares.clone(), *value)
    });
    let conditions = conditions.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}
