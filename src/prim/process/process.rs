//! Commands that run in a namespace.

use std::time::Duration;

use rhai::plugin::*;
use rhai::{Dynamic, Map};

use crate::lab::{Lab, PROCESS_MARK};
use crate::net;
use crate::prim::Group;
use crate::prim::call::beyond::{Beyond, reach};
use crate::prim::call::context::{RhaiResultOf, text_of, with_lab};
use crate::prim::value::handles::{self, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::quantity::Bytes;
use crate::prim::value::units::{FromScript, argument};
use crate::state::{Error, Kind, Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "process",
    about: "Commands that run in a namespace.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[ExecOptions::SET],
};

options! {
    /// Options of `exec`.
    pub struct ExecOptions of "exec" {
        /// How long it may take; then it is killed, and the call fails with `timeout`. No limit unless given.
        deadline: Duration,
        /// What it reads from its standard input; nothing unless given.
        stdin: String,
        /// How much it may write, to both outputs together; then it is killed, and the call fails with `exhausted`. 64MiB unless given.
        limit: Bytes,
    }
}

/// A command: a line for the shell, or a program with its arguments.
pub(super) struct CommandLine(pub(in crate::prim) Vec<String>);

/// The words of the shell that are no programs, or not only.
pub(super) const SHELL_WORDS: &[&str] = &[
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export", "fg",
    "for", "getopts", "hash", "if", "jobs", "read", "readonly", "return", "set", "shift", "source", "time", "times",
    "trap", "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
];

impl CommandLine {
    /// Returns the words of a line that the shell would do no more with than run the program: that can be run without a shell, and
    /// is then known to be missing where it is.
    pub(super) fn without_shell(self) -> CommandLine {
        let plain = |c: char| c.is_ascii_alphanumeric() || " -_./:,@%+=".contains(c);
        if let [_, _, line] = self.0.as_slice()
            && self.is_line()
            && line.chars().all(plain)
        {
            let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(String::from).collect();
            if words.first().is_some_and(|word| !word.contains('=') && !SHELL_WORDS.contains(&word.as_str())) {
                return CommandLine(words);
            }
        }
        self
    }

    /// Tells whether it is a line for the shell.
    pub(super) fn is_line(&self) -> bool {
        matches!(self.0.as_slice(), [shell, option, _] if shell == "/bin/sh" && option == "-c")
    }

    /// Returns a command for a message.
    pub(in crate::prim) fn shown(command: &Dynamic) -> String {
        match command.clone().into_string() {
            Ok(line) => name::shown(&line),
            Err(_) => name::shown(&command.to_string()),
        }
    }
}

impl FromScript for CommandLine {
    const WHAT: &'static str = r#"a command line, or a list such as ["ip", "addr"]"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if value.is_string() {
            let line = value.into_string().unwrap_or_default();
            return Ok(CommandLine(vec!["/bin/sh".into(), "-c".into(), line]));
        }
        let words = value.into_array().map_err(|_| String::new())?;
        let words: Vec<String> = words.iter().map(text_of).collect();
        if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
            Err(String::new())
        } else {
            Ok(CommandLine(words))
        }
    }
}

fn exec(lab: &mut Lab, netns: &NetnsHandle, command: Dynamic, options: Map) -> Result<Map> {
    let options = ExecOptions::parse(options)?;
    let at = netns.living(lab)?;
    let doing = format!("run `{}` in netns `{}`", CommandLine::shown(&command), at.name);
    let CommandLine(argv) = argument(&doing, command)?;
    let failed = |source: net::Error| match source.is_gone() {
        true => Error::new(Kind::Missing, doing.clone()).because(format!("there is no program `{}`", argv[0])),
        false => Error::kernel(doing.clone(), &source),
    };
    lab.note_act();
    let etc = lab.etc_for(&at)?;
    let (kernel, _) = lab.foreign();
    let netns = kernel.netns(&at).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let env = [(PROCESS_MARK.to_string(), kernel.marks().process_mark.clone())];
    let trail = kernel.trail_in(&at).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let bytes_max = options.limit.map_or(net::OUTPUT_BYTES_MAX, |limit| limit.0 as usize);
    let run = net::Run {
        netns: &netns,
        argv: &argv,
        env: &env,
        stdin: options.stdin.as_deref().map(str::as_bytes),
        cwd: None,
        etc: &etc,
        deadline: options.deadline,
        bytes_max,
        trail: trail.as_deref(),
    };
    let before = kernel.devs_before(&at).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let output = lab.wait_out(&doing, net::run(&run)).map_err(failed);
    let (kernel, _) = lab.foreign();
    // What it made there is the lab's, however it ended.
    kernel.mark_since(&at, &before).map_err(|source| Error::kernel(doing.clone(), &source))?;
    let output = output?;
    handles::disturbed(lab, &at);
    if output.timed_out {
        let deadline = options.deadline.unwrap_or_default();
        return Err(Error::new(Kind::Timeout, doing)
            .because(format!("it was still running after {deadline:?}, and was killed"))
            .hint("`deadline` gives it longer"));
    }
    if output.too_much {
        return Err(Error::new(Kind::Exhausted, doing)
            .because(format!("it wrote more than {bytes_max} bytes, and was killed"))
            .hint("`limit` allows more; a command that writes much is better told to write to a file"));
    }
    let text = |bytes: &[u8]| Dynamic::from(String::from_utf8_lossy(bytes).into_owned());
    Ok(Map::from_iter([
        ("ok".into(), (output.code == 0).into()),
        ("code".into(), i64::from(output.code).into()),
        ("stdout".into(), text(&output.stdout)),
        ("stderr".into(), text(&output.stderr)),
    ]))
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Runs a command in a namespace and returns `#{ ok, code, stdout, stderr }`: a line for `/bin/sh`, or a list of a program
    /// and its arguments.
    ///
    /// `code` is 128 and the signal's number where a signal ended it. What it leaves running ends with the lab.
    ///
    /// It has the environment and the working directory of `topo`, and nothing else of its caller: no open files, no ignored or blocked
    /// signals, and a umask of 022 or a stricter one of the caller's. It has no terminal: a program that asks for a password there fails at once.
    ///
    /// Like `ip netns exec NETNS sh -c 'COMMAND'`, without its own view of `/sys`.
    ///
    /// Fails with `missing` where there is no such program, with `timeout` after the `deadline`, with `exhausted` where it writes more
    /// than the `limit`, and with `denied` under `--no-exec`.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// let r = h.exec("echo hello; exit 3");
    /// assert(r.code == 3 && r.stdout == "hello\n" && !r.ok);
    /// assert(h.exec(["cat"], #{ stdin: "abc", deadline: "5s" }).stdout == "abc");
    /// ```
    #[rhai_fn(name = "exec", return_raw)]
    pub fn exec_with(ctx: NativeCallContext, netns: NetnsHandle, command: Dynamic, options: Map) -> RhaiResultOf<Map> {
        reach(&ctx, Beyond::Command, || format!("run `{}` in netns `{}`", CommandLine::shown(&command), netns.0.name))?;
        with_lab(&ctx, |lab| exec(lab, &netns, command, options))
    }

    /// Runs a command in a namespace without a deadline.
    #[rhai_fn(name = "exec", return_raw)]
    pub fn exec_plain(ctx: NativeCallContext, netns: NetnsHandle, command: Dynamic) -> RhaiResultOf<Map> {
        exec_with(ctx, netns, command, Map::new())
    }
}
