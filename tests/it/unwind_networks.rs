//! Crash safety of container networks: whatever change of the kernel or of the store fails, or is the last one before a
//! SIGKILL, the state is the one before the command or the one after it, and never one in between for good.
//!
//! The seam is `TOPO_FAULT`, as in unwind.rs; here it also counts every file that is written to the store.

pub(crate) mod dump;

use std::cell::RefCell;

use super::stage::{KILLED, with_fault};
use super::tier;
use super::world::{Ran, World};
use dump::Dump;

/// What is done about a command that was cut short.
#[derive(Clone, Copy, PartialEq)]
enum Finish {
    /// It takes everything back itself when it fails; `topo gc` does so when it is killed.
    TakeBack,
    /// `topo gc`, or the same command again, takes it to its end.
    Either,
    /// It is of several parts, each of which is whole or not there: after `topo gc` the same command goes on.
    Again,
}

/// A command, and how to get to the state before it.
struct Case<'a> {
    /// What is there before the command; lines of `topo`, or of the shell where they begin with `!`.
    setup: &'a [&'a str],
    /// The command.
    command: &'static str,
    /// What leads from the state after it back to the state before it.
    back: &'static [&'static str],
    finish: Finish,
    /// Each how manieth point is tried in the full tier: what many points have in common is tried at some.
    stride: usize,
    /// How many points there are at least.
    least: u32,
}

/// A case in its world.
struct Stage<'a> {
    w: World,
    case: &'a Case<'a>,
    history: RefCell<Vec<String>>,
    before: Dump,
    after: Dump,
}

const CREATE: &str = "network create web --subnet 10.5.0.0/24 --ipv6 fd00:5::/64";
const CONNECT: &str = "network connect web c1 --publish 8080:80 --publish 5353:53/udp";
const CONNECT_2: &str = "network connect web c2 --publish 8081:80";

const DISCONNECT: &str = "network disconnect web c1";

/// Publishes one more port.
const PUBLISH: &str = r#"
import "network" as network;
network::publish("web", "c1", "9090:90");
"#;

fn line(w: &World, line: &str, fault: &str) -> Ran {
    let dir = w.dir().to_str().expect("UTF-8");
    match line.strip_prefix('!') {
        Some(script) => {
            let set = format!("cd {dir}; topo={}; export TOPO_STATE={dir}/state; ", env!("CARGO_BIN_EXE_topo"));
            w.run(&(set + script))
        }
        None => with_fault(w, fault, &line.replace("DIR", dir).split(' ').collect::<Vec<_>>()),
    }
}

impl Stage<'_> {
    fn set<'a>(case: &'a Case<'a>) -> Stage<'a> {
        let w = World::new();
        w.topo(&["gc"]).ok();
        w.run_as_root(include_str!("unwind_networks/others.sh")).ok();
        w.write("publish.rhai", PUBLISH);
        // The locks of all pools and of all ports stay once they were made.
        for first in [CREATE, CONNECT, "network rm --force web"].iter().chain(case.setup) {
            line(&w, first, "").ok();
        }
        let before = Dump::take(&w);
        line(&w, case.command, "").ok();
        let after = Dump::take(&w);
        assert!(!before.diff(&after).is_empty(), "a command that changes nothing proves nothing");
        let stage = Stage { w, case, history: RefCell::default(), before, after };
        stage.go_back();
        stage
    }

    fn run(&self, words: &str, fault: &str) -> Ran {
        let ran = line(&self.w, words, fault);
        let said = format!("{}{}", ran.out(), ran.err());
        self.history.borrow_mut().push(format!("TOPO_FAULT={fault} {words}: {}\n{said}", ran.code));
        assert!(ran.code != 101 && !said.contains("panicked"), "a panic");
        ran
    }

    fn go_back(&self) {
        for back in self.case.back {
            self.run(back, "").ok();
        }
        self.assert_is("before", &self.before);
    }

    /// Checks the state; waits for what the kernel frees late.
    fn assert_is(&self, what: &str, wanted: &Dump) {
        let difference = self.difference_late(|now| wanted.diff(now));
        assert!(difference.is_empty(), "not the state {what} (+ too much, - missing, ~ changed):\n{difference}");
    }

    /// Checks that the state is the one before or the one after, and goes back to the former.
    fn assert_is_whole(&self) {
        let seen = RefCell::new((String::new(), String::new()));
        let difference = self.difference_late(|now| {
            *seen.borrow_mut() = (self.before.diff(now), self.after.diff(now));
            let seen = seen.borrow();
            if seen.0.is_empty() || seen.1.is_empty() { String::new() } else { "neither".to_owned() }
        });
        let (before, after) = &*seen.borrow();
        assert!(difference.is_empty(), "from the state before:\n{before}\nand from the state after:\n{after}");
        if !before.is_empty() {
            self.go_back();
        }
    }

    fn difference_late(&self, diff: impl Fn(&Dump) -> String) -> String {
        let start = std::time::Instant::now();
        loop {
            let difference = diff(&Dump::take(&self.w));
            if difference.is_empty() || start.elapsed() > std::time::Duration::from_secs(5) {
                return difference;
            }
        }
    }

    /// Cuts the command short at a point; tells whether there is one.
    fn cut_short(&self, fault: &str, point: u32) -> bool {
        let ran = self.run(self.case.command, &format!("{fault}:{point}"));
        if ran.code == 0 {
            self.assert_is("after", &self.after);
            self.go_back();
            return false;
        }
        let killed = fault == "kill";
        match killed {
            true => drop(ran.fails(KILLED)),
            false => drop(ran.fails(1).says("injected fault")),
        }
        // Where nothing but the lab's own directory was left, there is nothing to do again, and `topo gc` removes that.
        let again = || match self.run(self.case.command, "") {
            ran if ran.code == 1
                && ["is not connected", "there is no network"].iter().any(|why| ran.err().contains(why)) =>
            {
                drop(self.run("gc", "").ok());
            }
            ran => drop(ran.ok()),
        };
        match self.case.finish {
            Finish::TakeBack if killed => drop(self.run("gc", "").ok()),
            Finish::TakeBack => return self.assert_is_before(),
            Finish::Either if killed && point.is_multiple_of(2) => drop(self.run("gc", "").ok()),
            Finish::Either => again(),
            Finish::Again => {
                self.run("gc", "").ok();
                again();
            }
        }
        self.assert_is_whole();
        true
    }

    fn assert_is_before(&self) -> bool {
        self.assert_is("before", &self.before);
        true
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.history.borrow().iter().rev().take(4).rev().for_each(|line| println!("{line}"));
        }
    }
}

/// Cuts the command of a case short at its points, by a kill and by a failure.
fn at_each_point(case: &Case<'_>) {
    let stage = Stage::set(case);
    for point in (1..).step_by(tier::stride(case.stride)) {
        let (killed, failed) = (stage.cut_short("kill", point), stage.cut_short("fail", point));
        assert_eq!(killed, failed, "kills and failures meet the same points");
        if !killed {
            println!("{} points", point - 1);
            assert!(point > case.least || !tier::full(), "{} points", point - 1);
            return;
        }
    }
}

#[test]
fn n2_create() {
    at_each_point(&Case {
        setup: &[],
        command: CREATE,
        back: &["network rm web"],
        finish: Finish::TakeBack,
        stride: 4,
        least: 25,
    });
}

#[test]
fn n2_connect() {
    at_each_point(&Case {
        // Its first port teaches a bridge what it can offload, for good; the first lease makes the block that it is in.
        setup: &[CREATE, CONNECT, DISCONNECT],
        command: CONNECT,
        back: &[DISCONNECT],
        finish: Finish::TakeBack,
        stride: 2,
        least: 20,
    });
}

#[test]
fn n2_publish() {
    at_each_point(&Case {
        setup: &[CREATE, CONNECT],
        command: "run DIR/publish.rhai",
        back: &["!$topo down $(cd state/labs; echo *.p-*)"],
        finish: Finish::TakeBack,
        stride: 2,
        least: 5,
    });
}

#[test]
fn n3_disconnect() {
    at_each_point(&Case {
        setup: &[CREATE, CONNECT],
        command: DISCONNECT,
        back: &[CONNECT],
        finish: Finish::Either,
        stride: 3,
        least: 10,
    });
}

#[test]
fn n3_rm() {
    at_each_point(&Case {
        setup: &[CREATE],
        command: "network rm web",
        back: &[CREATE],
        finish: Finish::Either,
        stride: 3,
        least: 10,
    });
}

#[test]
fn n4_rm_by_force() {
    at_each_point(&Case {
        setup: &[CREATE, CONNECT, CONNECT_2],
        command: "network rm --force web",
        back: &[CREATE, CONNECT, CONNECT_2],
        finish: Finish::Again,
        stride: 9,
        least: 30,
    });
}

/// A restart of the machine: what was made in the kernel ends with the namespace that it was made in, and the boot has
/// another number.
#[test]
fn restore() {
    const EARLIER: &str = "!ip netns add earlier; ip netns exec earlier $topo ";
    const RESTART: &str = "!ip netns del earlier; while ip -n c1 link show eth0 >/dev/null 2>&1; do :; done; echo another >boot_id; mount --bind boot_id \
                           /proc/sys/kernel/random/boot_id; $topo gc";
    let create = format!("{EARLIER}{CREATE}; ip netns exec earlier $topo {CONNECT}");
    at_each_point(&Case {
        setup: &[&create, RESTART],
        command: "network restore web",
        back: &["down net.web"],
        finish: Finish::Again,
        stride: 9,
        least: 30,
    });
}

/// Somebody flushed the rules, and turned forwarding off.
#[test]
fn d13_repair() {
    const FLUSH: &str = "!nft delete table inet $(nft list tables | grep -o 'topo-.*'); nft flush chain inet others forward; \
                         echo 0 >/proc/sys/net/ipv4/conf/up0/forwarding";
    at_each_point(&Case {
        setup: &[CREATE, CONNECT, FLUSH],
        command: "network repair web",
        back: &[FLUSH],
        finish: Finish::Again,
        stride: 3,
        least: 5,
    });
}
