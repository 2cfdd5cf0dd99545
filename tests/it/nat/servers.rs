//! Who answers whom, and with which address as the client's.

use std::path::PathBuf;
use std::time::Duration;

use super::Site;
use crate::world::{Running, World};

const SERVER: &str = include_str!("server.py");
const FLOW: &str = include_str!("flow.py");

/// How long a program may take to start.
const STARTS: Duration = Duration::from_secs(30);

/// How long to wait, in seconds, for what must come, and for what must not.
const COMES: u32 = 10;
const IS_LOST: u32 = 1;

/// What a client hears whom nobody tells anything.
pub(super) const LOST: &str = "lost";
/// What a client hears of a closed port.
pub(super) const REFUSED: &str = "refused";

/// The system's Python, which starts faster than one of a version manager.
pub(super) const PYTHON: &str = "PATH=/usr/bin:/usr/sbin:$PATH exec python3 -I -S";

/// Returns what a command begins with that runs in `netns`, or on the host.
fn enter(netns: &str) -> String {
    if netns == "host" { String::new() } else { format!("nsenter --net=/run/netns/{netns} ") }
}

impl Site {
    /// Starts a server in `netns`, or on the host, that answers with that name and its client's address: see server.py.
    pub(super) fn serve(&self, netns: &str, on: &str) {
        let program = self.program("server.py", SERVER);
        let command = format!("{PYTHON} {} {netns} {on}", program.display());
        let running = self.start(netns, &command);
        running.wait_for_output("ready", STARTS);
        self.servers.borrow_mut().push(running);
    }

    /// Starts a shell's command in `netns`, or on the host.
    pub(super) fn start(&self, netns: &str, command: &str) -> Running {
        // The shell is the one that nsenter becomes, so that the command ends with it.
        let quoted = command.replace('\'', r"'\''");
        self.w.start_run(&format!("exec {}sh -c '{quoted}'", enter(netns)))
    }

    /// Starts a flow of datagrams from `netns` to a port of an address, from the port 40000: see flow.py.
    pub(super) fn flow(&self, netns: &str, to: &str, port: u16) -> Running {
        let program = self.program("flow.py", FLOW);
        self.start(netns, &format!("{PYTHON} {} {to} {port} 40000", program.display()))
    }

    /// Writes a program once: one that was just started may not have read it yet.
    pub(super) fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.w.dir().join(name);
        if path.exists() { path } else { self.w.write(name, text) }
    }

    /// Asks as a client in `from`, and returns the answer. `to` is `ADDRESS:PORT`, with `/udp` behind it for a datagram.
    pub(super) fn ask(&self, from: &str, to: &str, seconds: u32) -> String {
        ask(&self.w, from, to, seconds)
    }

    /// Asks as each client, all at once, and checks the answers.
    #[track_caller]
    pub(super) fn answers(&self, all: &[(&str, &str, &str)]) {
        let w = &self.w;
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let differs = |&(from, to, expected): &(&str, &str, &str)| {
                let got = ask(w, from, to, if expected == LOST { IS_LOST } else { COMES });
                (got != expected).then(|| format!("{from} asked {to}: {got}, expected: {expected}"))
            };
            let asked: Vec<_> = all.iter().map(|one| scope.spawn(move || differs(one))).collect();
            asked.into_iter().filter_map(|one| one.join().expect("an answer")).collect()
        });
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), self.rules());
    }
}

/// Asks as a client in `from`, and returns the answer.
fn ask(w: &World, from: &str, to: &str, seconds: u32) -> String {
    let enter = enter(from);
    let Some(udp) = to.strip_suffix("/udp") else {
        let ran = w.run(&format!("{enter}curl --silent --noproxy '*' --globoff --max-time {seconds} http://{to}/"));
        return match ran.code {
            0 => ran.out().trim().to_owned(),
            7 => REFUSED.to_owned(),
            28 => LOST.to_owned(),
            code => panic!("curl from {from} to {to} ended with {code}: {}", ran.err()),
        };
    };
    let (ip, port) = udp.rsplit_once(':').expect("a port");
    let ip = ip.trim_matches(['[', ']']);
    // Not `read`, which takes a datagram's first byte and leaves the rest to be thrown away.
    let script = format!("exec 3<>/dev/udp/{ip}/{port}; echo hello >&3; exec timeout {seconds} head -n 1 <&3");
    let ran = w.run(&format!("{enter}bash -c '{script}'"));
    match ran.code {
        0 => ran.out().trim().to_owned(),
        1 => REFUSED.to_owned(),
        _ => LOST.to_owned(),
    }
}
