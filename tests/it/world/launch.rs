//! How a command gets into a world: by two clones of the test process that share its memory up to the exec, as posix_spawn(3) does it.
//! A fork would copy the page tables of all that the tests hold, which took longer than most commands.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io::{self, Error};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::USER;
use super::sys::{checked, errno};

/// What is needed to start a command, all of it prepared before the first clone.
pub(super) struct Launch {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    world: RawFd,
    namespaces: c_int,
    directory: CString,
    /// Its input and its two outputs.
    pub(super) stdio: [RawFd; 3],
    pub(super) become_user: bool,
    pub(super) keep_rights: bool,
    pub(super) at_terminal: bool,
}

/// What the clones have: the launch, and where they say what came of it.
struct Shared<'a> {
    launch: &'a Launch,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    stack: *mut c_void,
    pid: AtomicI32,
    error: AtomicI32,
}

impl Launch {
    pub(super) fn new(
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
        (world, namespaces): (RawFd, c_int),
        directory: &Path,
    ) -> io::Result<Launch> {
        let path = env.iter().rev().find(|(name, _)| *name == "PATH").map_or("", |(_, path)| path);
        let name = CString::new(program.as_os_str().as_bytes())?;
        let args = args.iter().map(|arg| CString::new(*arg));
        // Of two values of one name the last one counts.
        let last = |at: usize, name: &str| env.iter().skip(at + 1).all(|(later, _)| *later != name);
        let env = env.iter().enumerate().filter(|(at, (name, _))| last(*at, name));
        Ok(Launch {
            program: CString::new(found(program, path)?.as_os_str().as_bytes())?,
            args: [Ok(name)].into_iter().chain(args).collect::<Result<_, _>>()?,
            env: env.map(|(_, (name, value))| CString::new(format!("{name}={value}"))).collect::<Result<_, _>>()?,
            world,
            namespaces,
            directory: CString::new(directory.as_os_str().as_bytes())?,
            stdio: [0, 1, 2],
            become_user: false,
            keep_rights: false,
            at_terminal: false,
        })
    }

    /// Starts the command; it is a child of the test process. Returns its process id.
    pub(super) fn start(&self) -> io::Result<i32> {
        let pointers = |all: &[CString]| all.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        let (mut first, mut second) = (stack(), stack());
        let shared = Shared {
            launch: self,
            argv: pointers(&self.args),
            envp: pointers(&self.env),
            stack: second.as_mut_ptr_range().end.cast(),
            pid: AtomicI32::new(0),
            error: AtomicI32::new(0),
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = first.as_mut_ptr_range().end.cast();
        // SAFETY: this thread sleeps until the child has ended (CLONE_VFORK), so that `shared` and both stacks outlive it. The child
        // makes only system calls, on what was prepared above, and no signal comes to it before it has its own handlers.
        let middle = unsafe {
            let (mut all, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            let pid = libc::clone(middle, top, flags, ptr::from_ref(&shared).cast_mut().cast());
            let failed = errno();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
            // A child that changes its user takes this from the memory that it shares (commit_creds of kernel/cred.c).
            libc::prctl(libc::PR_SET_DUMPABLE, 1 as c_ulong);
            if pid < 0 { Err(Error::from_raw_os_error(failed)) } else { Ok(pid) }
        }?;
        waitpid(Pid::from_raw(middle), None)?;
        let (pid, error) = (shared.pid.load(Ordering::SeqCst), shared.error.load(Ordering::SeqCst));
        if error == 0 {
            return Ok(pid);
        }
        if pid > 0 {
            waitpid(Pid::from_raw(pid), None).ok();
        }
        Err(Error::from_raw_os_error(error))
    }
}

/// Memory for the stack of a clone. It needs a few frames; those of a build without optimisation are large.
fn stack() -> Vec<u128> {
    vec![0; 8192]
}

/// Finds a program on a PATH.
fn found(program: &Path, path: &str) -> io::Result<PathBuf> {
    if program.components().count() > 1 {
        return Ok(program.to_owned());
    }
    let candidates = path.split(':').map(|dir| Path::new(dir).join(program));
    candidates.into_iter().find(|file| file.is_file()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The first clone: goes into the world, and makes the second one there.
extern "C" fn middle(shared: *mut c_void) -> c_int {
    // SAFETY: it is the `Shared` of `start`, which waits.
    let this = unsafe { &*shared.cast::<Shared<'_>>() };
    // A process never changes its own pid namespace, only that of its children. The child made here gets our own parent as its
    // parent (CLONE_PARENT), so the test process can wait for it, and we are done.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT | libc::SIGCHLD;
    if let Err(err) = this.launch.enter() {
        return this.fails(&err);
    }
    // SAFETY: as in `start`; this clone sleeps until its child has made its exec or has ended.
    let pid = unsafe { libc::clone(inner, this.stack, flags, shared) };
    if pid < 0 {
        return this.fails(&Error::last_os_error());
    }
    this.pid.store(pid, Ordering::SeqCst);
    0
}

/// The second clone: becomes the command.
extern "C" fn inner(shared: *mut c_void) -> c_int {
    // SAFETY: it is the `Shared` of `start`, which waits.
    let this = unsafe { &*shared.cast::<Shared<'_>>() };
    if let Err(err) = this.launch.settle_in() {
        return this.fails(&err);
    }
    // SAFETY: pointers to strings that end with a null byte, and a null pointer behind the last one.
    unsafe { libc::execve(this.launch.program.as_ptr(), this.argv.as_ptr(), this.envp.as_ptr()) };
    this.fails(&Error::last_os_error())
}

impl Shared<'_> {
    fn fails(&self, err: &Error) -> c_int {
        self.error.store(err.raw_os_error().unwrap_or(libc::EIO), Ordering::SeqCst);
        127
    }
}

impl Launch {
    /// Goes into the world. Runs in a clone, so only by system calls.
    fn enter(&self) -> io::Result<()> {
        // SAFETY: numbers, and a pointer to what lives longer than the call.
        unsafe {
            checked(libc::setns(self.world, self.namespaces))?;
            checked(libc::chdir(self.directory.as_ptr()))?;
            libc::umask(0o022);
        }
        Ok(())
    }

    /// Takes what the command is to have: its terminal, its user, its input and outputs. Runs in a clone, so only by system calls.
    fn settle_in(&self) -> io::Result<()> {
        // SAFETY: numbers, and pointers to what lives longer than the calls.
        unsafe {
            for (to, from) in (0..).zip(self.stdio) {
                checked(libc::dup2(from, to))?;
            }
            // However the tests were started: `nohup` and a shell's `&` have them ignore signals, and each of their children too.
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            if self.at_terminal {
                // Only the first process of a session can make its input the session's terminal.
                checked(libc::setsid())?;
                checked(libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0))?;
            }
            if self.become_user {
                // By number, not by libc's functions: those want to stop threads that this process doesn't have.
                let (id, none) = (c_long::from(USER), 0 as c_long);
                checked(libc::syscall(libc::SYS_setgroups, none, ptr::null::<libc::gid_t>()))?;
                checked(libc::syscall(libc::SYS_setresgid, id, id, id))?;
                checked(libc::syscall(libc::SYS_setresuid, id, id, id))?;
            }
            if self.keep_rights {
                keep_capabilities()?;
            }
        }
        Ok(())
    }
}

/// Makes all capabilities survive the exec of a process whose id isn't 0.
fn keep_capabilities() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [[0_u32; 3]; 2]; // For the low and the high 32: effective, permitted, inheritable.
    // SAFETY: the structures have the size and layout that version 3 of the call asks for.
    unsafe {
        checked(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()))?;
        for set in &mut sets {
            set[2] = set[1];
        }
        checked(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()))?;
        for capability in 0..64 {
            let (raise, none): (c_ulong, c_ulong) = (libc::PR_CAP_AMBIENT_RAISE as c_ulong, 0);
            if libc::prctl(libc::PR_CAP_AMBIENT, raise, capability as c_ulong, none, none) < 0
                && errno() == libc::EINVAL
            {
                break; // The kernel knows no more.
            }
        }
    }
    Ok(())
}
