//! What a user sees of the command line: outputs, messages and exit codes, as snapshots. `UPDATE_EXPECT=1 cargo test` writes
//! them anew; read them then as a user would.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `help.rs` | help, documentation, workflows, completion |
//! | `run.rs` | `topo run`: what a script prints, its arguments, its lab at the end |
//! | `errors.rs` | what is said of a script that fails, and of one that can't be read |
//! | `labs.rs` | the labs that are up: `ls`, `show`, `exec`, `down`, `gc`; and `doctor` |
//! | `sandbox.rs` | labs without root |

mod errors;
mod help;
mod labs;
mod run;
mod sandbox;

use expect_test::Expect;

use crate::world::{Ran, World};

/// Two hosts on a cable, with a check: the lab of most tests here.
const PAIR: &str = r#"let h1 = netns("h1");
let h2 = netns("h2");
veth(h1["eth0"], h2["eth0"]);
h1["eth0"].addr("10.0.0.1/24");
h2["eth0"].addr("10.0.0.2/24");
check("h1 reaches h2", h1.ping("10.0.0.2"));
"#;

/// Runs `test` in a new world, as its root, in which topo was used before; checks that it left nothing behind.
fn as_root(test: impl FnOnce(&World)) {
    leaves_nothing(&World::new(), test);
}

/// Runs `test` in a new world, as an ordinary user, in which topo was used before; checks that it left nothing behind.
fn as_user(test: impl FnOnce(&World)) {
    leaves_nothing(&World::unprivileged(), test);
}

fn leaves_nothing(world: &World, test: impl FnOnce(&World)) {
    // The state directory itself is there from the first lab on.
    world.topo(&["run", "--rm", "-e", "1"]).ok();
    world.run("mkdir -p $TOPO_STATE/labs; touch $TOPO_STATE/lock").ok();
    let before = world.snapshot();
    test(world);
    world.assert_clean(&before);
}

/// Runs `topo ARGS` and compares all that a user sees.
fn shows(world: &World, args: &[&str], expected: Expect) {
    expected.assert_eq(&seen(world, &world.topo(args)));
}

/// Writes down what a user sees of a command: the command, its output, its messages after a line, its exit code if it isn't 0.
fn seen(world: &World, ran: &Ran) -> String {
    let mut text = format!("$ {}\n{}", ran.command, ran.out());
    if !ran.err().is_empty() {
        text.push_str(&format!("--- stderr\n{}", ran.err()));
    }
    if ran.code != 0 {
        text.push_str(&format!("--- exit code {}\n", ran.code));
    }
    masked(&text.replace(&world.dir().display().to_string(), "DIR"))
}

/// Replaces what differs from run to run: measured times, ages, dates, process numbers, random hardware addresses.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut words = text.split_inclusive(|c: char| c.is_whitespace() || ",;()`\"".contains(c)).peekable();
    let mut before = "";
    while let Some(word) = words.next() {
        let end = word.trim_end_matches(|c: char| c.is_whitespace() || ",;()`\"".contains(c)).len();
        let (core, rest) = word.split_at(end);
        let fraction = |number: &str| {
            let parts: Vec<&str> = number.split('.').collect();
            parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        let digits = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let time = core.strip_suffix("µs").or_else(|| core.strip_suffix("ms")).or_else(|| core.strip_suffix('s'));
        masked.push_str(match core {
            _ if before == "process" && digits(core) => "PID",
            _ if fraction(core) && core != "0.000" && core != "100.000" => "N.N",
            _ if time.is_some_and(fraction) => "TIME",
            _ if core.len() == 10 && digits(core) => "DATE",
            // As wide as it was, for the columns of a table.
            _ if core.len() == 2 && core.ends_with('s') && time.is_some_and(digits) => "Ns",
            _ if core.starts_with("fe80::") => "fe80::X",
            _ => core,
        });
        masked.push_str(rest);
        before = core;
    }
    masked
}
