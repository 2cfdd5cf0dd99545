//! Commands inside a namespace.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select, try_join3};
use nix::sched::{CloneFlags, setns};
use nix::unistd::setsid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};

use super::fresh::{self, OpenFiles};
use super::{foreground, signal};
use crate::net::{Cgroup, Error, EtcFile, Netns, ProcessId, Result};

/// How long to listen on when the command has ended but somebody whom it started keeps its output open.
const AFTER_THE_END: Duration = Duration::from_millis(100);

/// A command, where and how it runs.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The namespace that it is in.
    pub netns: &'a Netns,
    /// The program, looked for in PATH, and its arguments.
    pub argv: &'a [String],
    /// What is set in its environment besides the caller's own.
    pub env: &'a [(String, String)],
    /// What it can read; nothing (/dev/null) if none is given.
    pub stdin: Option<&'a [u8]>,
    /// Its working directory; the caller's own if none is given.
    pub cwd: Option<&'a Path>,
    /// The files of /etc that it sees otherwise.
    pub etc: &'a [EtcFile],
    /// When it is killed.
    pub deadline: Option<Duration>,
    /// How many bytes it may write, to both outputs together; then it is killed.
    pub bytes_max: usize,
    /// How what it leaves running is found again.
    pub trail: Option<&'a Trail>,
}

/// How what commands leave running is found again.
#[derive(Debug)]
pub enum Trail {
    /// They join a control group.
    Group(Cgroup),
    /// Each is noted in a file, as a line `PID START`; it leads a session.
    List(File),
}

/// What a command may write unless something else is asked for.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
impl<'a> Run<'a> {
    /// Returns a command with nothing to read, the caller's environment and directory, and all the time it needs.
    pub fn new(netns: &'a Netns, argv: &'a [String]) -> Run<'a> {
        Run {
            netns,
            argv,
            env: &[],
            stdin: None,
            cwd: None,
            etc: &[],
            deadline: None,
            bytes_max: OUTPUT_BYTES_MAX,
            trail: None,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 and the signal's number if it was killed, as a shell has it.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Whether it was killed at the deadline.
    pub timed_out: bool,
    /// Whether it was killed because it wrote too much.
    pub too_much: bool,
}

/// Runs a command inside a namespace until it ends, or is killed at the deadline or when a signal is caught (EINTR). Dropping the future
/// kills it too.
///
/// Does not wait for processes that the command leaves behind, even if they keep its output open. Like `ip netns exec`,
/// but without its mounts: /sys and /etc/resolv.conf stay the caller's. ENOENT if there is no such program, EACCES if it
/// is not executable, EINVAL without a program.
pub async fn run(run: &Run<'_>) -> Result<Output> {
    let Some((program, arguments)) = run.argv.split_first() else {
        return Err(Error::new("run a command", libc::EINVAL).saying("no program is named"));
    };
    let failed = |error| Error::io(format!("run `{program}`"), error);
    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(run.env.iter().map(|(name, value)| (name, value)));
    command.stdin(if run.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = run.cwd {
        command.current_dir(cwd);
    }
    command_in(run.netns, &mut command, OpenFiles::None);
    crate::net::see(run.etc, &mut command).map_err(failed)?;
    // Ctrl-C at a terminal is for the caller, who then ends the command: else the command's end could be met first, and be taken
    // for its result, and what it left running would end by any later Ctrl-C (`a_command_does_not_get_the_terminals_ctrl_c`). In a
    // session of its own the command has no terminal: one that asks for a password there fails, and is not stopped by SIGTTIN for ever.
    //
    // SAFETY: setsid(2) may be called between fork and exec (signal-safety(7)).
    unsafe { command.pre_exec(|| Ok(setsid().map(|_| ())?)) };
    if let Some(Trail::Group(group)) = run.trail {
        join(group, &mut command).map_err(failed)?;
    }
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
    if let (Some(Trail::List(list)), Some(Ok(ProcessId { pid, start }))) = (run.trail, child.id().map(ProcessId::of)) {
        writeln!(&mut &*list, "{pid} {start}").map_err(failed)?;
    }
    let attended = async { attend(&mut child, run).await.map_err(failed) };
    let done = signal::unless_caught("wait for the command", attended).await;
    if signal::caught().is_some() {
        // Who stops a run looks next at what is left of it: the command is gone by then, and nobody else waits for it.
        let _ = child.start_kill();
        let _ = child.wait().await;
    }
    done
}

/// Feeds the child and listens to it until it ends.
async fn attend(child: &mut Child, run: &Run<'_>) -> io::Result<Output> {
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (heard_all, room) = (Cell::new(false), Cell::new(run.bytes_max));
    let too_much = Cell::new(false);
    let mut talk = Box::pin(async {
        let fed = async {
            feed(stdin, run.stdin).await;
            Ok(())
        };
        let heard = try_join3(fed, drain(out, &mut stdout, &room), drain(err, &mut stderr, &room)).await;
        too_much.set(heard.is_err());
        heard_all.set(true);
    });
    let ended = async {
        match select(pin!(child.wait()), &mut talk).await {
            Either::Left((status, _)) => Some(status),
            Either::Right(((), _)) if too_much.get() => None,
            // It has closed its output, and may run on.
            Either::Right(((), wait)) => Some(wait.await),
        }
    };
    let ended = match run.deadline {
        Some(deadline) => tokio::time::timeout(deadline, ended).await.ok(),
        None => Some(ended.await),
    };
    let timed_out = ended.is_none();
    let status = match ended.flatten() {
        Some(status) => status?,
        None => {
            child.start_kill()?;
            child.wait().await?
        }
    };
    if !heard_all.get() {
        // What is in the pipes is read at once; only somebody else who holds them open can make this wait.
        let _ = tokio::time::timeout(AFTER_THE_END, &mut talk).await;
    }
    drop(talk);
    let too_much = too_much.get();
    Ok(Output { code: code(status), stdout, stderr, timed_out, too_much })
}

async fn feed(stdin: Option<ChildStdin>, bytes: Option<&[u8]>) {
    if let (Some(mut stdin), Some(bytes)) = (stdin, bytes) {
        // A command may well end, or close its input, before it has read all.
        let _ = stdin.write_all(bytes).await;
    }
}

/// There was no room for what a command wrote.
struct Full;

async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    room: &Cell<usize>,
) -> std::result::Result<(), Full> {
    let Some(mut from) = from else { return Ok(()) };
    loop {
        // A pipe fails in no other way than by its end.
        let Ok(read @ 1..) = from.read_buf(into).await else { return Ok(()) };
        room.set(room.get().checked_sub(read).ok_or(Full)?);
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Makes `command` start in a control group.
fn join(group: &Cgroup, command: &mut std::process::Command) -> io::Result<()> {
    let entrance = File::options().write(true).open(group.entrance())?;
    let join = move || nix::unistd::write(&entrance, b"0").map(|_| ()).map_err(io::Error::from);
    // SAFETY: between fork and exec this makes one system call, which is async-signal-safe (signal-safety(7)).
    unsafe { command.pre_exec(join) };
    Ok(())
}

/// Makes `command` start inside `netns`, with what any command begins with (`fresh`).
pub fn command_in(netns: &Netns, command: &mut std::process::Command, files: OpenFiles) {
    let netns = netns.clone();
    let enter = move || Ok(setns(netns.fd(), CloneFlags::CLONE_NEWNET)?);
    // SAFETY: setns(2) is a system call.
    unsafe { command.pre_exec(enter) };
    as_any_command(command, files);
}

/// Makes `command` begin with default signal dispositions, no blocked signal, a sane umask and the caller's limit of open files.
pub fn as_any_command(command: &mut std::process::Command, files: OpenFiles) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are system calls, signal(3), a look at
    // what was written once, and an assignment of plain memory, without allocation or locks (signal-safety(7)).
    unsafe { command.pre_exec(move || Ok(fresh::begin(files)?)) };
}

/// Makes `command` lead a process group of its own, in the terminal's foreground.
pub fn in_foreground(command: &mut std::process::Command) {
    // SAFETY: these are system calls, without allocation or locks (signal-safety(7)).
    unsafe { command.pre_exec(|| Ok(foreground::lead()?)) };
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::sys::signal::SigSet;

    use super::super::in_netns;
    use super::*;
    use crate::net::testing::{block_on, netns};

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    fn sh(script: &str) -> Vec<String> {
        argv(&["sh", "-c", script])
    }

    #[test]
    fn it_runs_in_the_namespace_with_what_it_was_given() {
        block_on(async {
            let netns = netns();
            let script = "readlink /proc/self/ns/net; pwd; echo $NAME; cat; echo oops >&2; exit 3";
            let (argv, env) = (sh(script), [("NAME".to_string(), "a b".to_string())]);
            let cwd = Some(Path::new("/proc"));
            let with = Run { env: &env, stdin: Some(b"in"), cwd, ..Run::new(&netns, &argv) };
            let output = run(&with).await.expect("ran");
            let expected = format!("{}\n/proc\na b\nin", netns.id());
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
            assert_eq!((output.stderr.as_slice(), output.code, output.timed_out), (b"oops\n".as_slice(), 3, false));
        });
    }

    #[test]
    fn with_nothing_to_read_it_reads_nothing() {
        block_on(async {
            let netns = netns();
            let argv = argv(&["cat"]);
            assert_eq!(run(&Run::new(&netns, &argv)).await.expect("ran").stdout, b"");
        });
    }

    #[test]
    fn much_goes_both_ways() {
        block_on(async {
            let netns = netns();
            let argv = argv(&["cat"]);
            let much = vec![b'x'; 1 << 20];
            let output = run(&Run { stdin: Some(&much), ..Run::new(&netns, &argv) }).await.expect("ran");
            assert_eq!(output.stdout.len(), much.len());
            let careless = sh("exec 0<&-; echo done");
            let output = run(&Run { stdin: Some(&much), ..Run::new(&netns, &careless) }).await.expect("ran");
            assert_eq!(output.stdout, b"done\n");
        });
    }

    #[test]
    fn at_the_deadline_it_is_killed() {
        block_on(async {
            let netns = netns();
            let argv = sh("echo early; exec sleep 1000");
            let deadline = Some(Duration::from_millis(300));
            let output = run(&Run { deadline, ..Run::new(&netns, &argv) }).await.expect("ran");
            assert_eq!((output.code, output.timed_out, output.stdout.as_slice()), (137, true, b"early\n".as_slice()));
            assert_eq!(in_netns(&[netns.id()].into()).expect("nobody"), []);
        });
    }

    #[test]
    fn dropped_it_is_killed() {
        block_on(async {
            let netns = netns();
            let argv = argv(&["sleep", "1000"]);
            let _ = tokio::time::timeout(Duration::from_millis(50), run(&Run::new(&netns, &argv))).await;
            // The child is killed but its parent has yet to take notice: it is in no namespace any more then.
            let gone = async {
                while !in_netns(&[netns.id()].into()).expect("read").is_empty() {
                    tokio::task::yield_now().await
                }
            };
            tokio::time::timeout(Duration::from_secs(10), gone).await.expect("killed");
        });
    }

    #[test]
    fn who_is_left_behind_is_not_waited_for() {
        block_on(async {
            let netns = netns();
            let argv = sh("sleep 1000 & echo $!; exit 7");
            let start = Instant::now();
            let output = run(&Run::new(&netns, &argv)).await.expect("ran");
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let pid: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
            assert_eq!(output.code, 7);
            let left = in_netns(&[netns.id()].into()).expect("one");
            assert_eq!(left.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
            assert_eq!(super::super::end(&left, Duration::from_secs(10)).expect("ended"), []);
        });
    }

    #[test]
    fn one_that_closes_its_output_is_waited_for() {
        block_on(async {
            let netns = netns();
            let argv = sh("exec >&- 2>&-; read nothing; exit 5");
            let output = run(&Run::new(&netns, &argv)).await.expect("ran");
            assert_eq!((output.code, output.timed_out), (5, false));
        });
    }

    #[test]
    fn what_cannot_be_run() {
        block_on(async {
            let netns = netns();
            let absent = run(&Run::new(&netns, &argv(&["no-such-program"]))).await.expect_err("absent");
            assert_eq!((absent.errno(), absent.doing()), (libc::ENOENT, "run `no-such-program`"));
            assert_eq!(run(&Run::new(&netns, &[])).await.expect_err("nothing").errno(), libc::EINVAL);
            let killed = run(&Run::new(&netns, &sh("kill -KILL $$"))).await.expect("ran");
            assert_eq!(killed.code, 128 + libc::SIGKILL);
        });
    }

    #[test]
    fn no_signal_is_blocked_in_it() {
        let netns = netns();
        // On a thread of its own: the mask belongs to the thread.
        let output = std::thread::spawn(move || {
            SigSet::all().thread_block().expect("blocked");
            block_on(async { run(&Run::new(&netns, &sh("grep SigBlk /proc/self/status"))).await })
        });
        let output = output.join().expect("no panic").expect("ran");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "SigBlk:\t0000000000000000\n");
    }
}
