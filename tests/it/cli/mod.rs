//! What a user sees of the command line: outputs, messages and exit codes, as transcripts. `UPDATE_EXPECT=1 cargo test`
//! writes them anew; read them then as a user would.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `help.rs` | help, documentation, workflows, completion |
//! | `run.rs` | `topo run`: what a script prints, its arguments, its lab at the end |
//! | `errors.rs` | what is said of a script that fails |
//! | `elsewhere.rs` | words of other tools and languages, in scripts, at the prompt and as commands |
//! | `refused.rs` | what is said before a script runs: of files, rights, headers, and by `topo check` |
//! | `labs.rs` | the labs that are up: `ls`, `show`, `exec`, `down`, `gc`; and `doctor` |
//! | `inputs.rs` | what is read from files: circular imports, FIFOs, devices |
//! | `memory.rs` | scripts that ask for too much memory |
//! | `output.rs` | full devices, closed pipes, control characters |
//! | `sandbox.rs` | labs without root |
//! | `strangers.rs` | scripts of others: `--no-exec`, and whose files are used |

mod closures;
mod elsewhere;
mod errors;
mod help;
mod inputs;
mod labs;
mod memory;
mod output;
mod progress;
mod refused;
mod results;
mod run;
mod sandbox;
mod strangers;
mod typos;

use expect_test::Expect;

use crate::stage::{in_used_user_world, in_used_world};
use crate::world::{Ran, World};

/// Two hosts on a cable, with a check: the lab of most tests here.
const PAIR: &str = r#"let h1 = netns("h1");
let h2 = netns("h2");
veth(h1["eth0"], h2["eth0"]);
h1["eth0"].addr("10.0.0.1/24");
h2["eth0"].addr("10.0.0.2/24");
check("h1 reaches h2", h1.ping("10.0.0.2"));
"#;

/// Runs `test` as root in a world that topo has used before; checks that it left nothing behind.
fn as_root(test: impl FnOnce(&World)) {
    in_used_world("", |world, _| test(world));
}

/// Runs `test` as an ordinary user in a world that topo has used before; checks that it left nothing behind.
fn as_user(test: impl FnOnce(&World)) {
    in_used_user_world("", |world, _| test(world));
}

/// A person at a terminal in a world.
pub(crate) trait Terminal {
    /// Runs the commands of a transcript, its lines that begin with `$`, and compares all that is seen: for each command its
    /// output, its messages below `--- stderr`, and its exit code if that isn't 0.
    ///
    /// Commands are parted into words as a shell does it, with `'…'` and `NAME=VALUE` before `topo`; any other program than
    /// `topo` is run by a shell. A new test is written as its commands alone, and `UPDATE_EXPECT=1` fills in the rest.
    fn session(&self, transcript: Expect) {
        self.session_env(&[], transcript);
    }

    /// The same, with more environment variables.
    fn session_env(&self, env: &[(&str, &str)], transcript: Expect);
}

impl Terminal for World {
    fn session_env(&self, env: &[(&str, &str)], transcript: Expect) {
        let commands = transcript.data().lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
        let seen: String = commands.map(|command| seen(self, command, &run(self, env, command))).collect();
        transcript.assert_eq(&seen);
    }
}

fn run(world: &World, around: &[(&str, &str)], command: &str) -> Ran {
    let words = words(command);
    let (env, words): (Vec<_>, Vec<_>) = {
        let program = words.iter().position(|word| !word.contains('=')).expect("a program");
        (words[..program].to_vec(), words[program..].iter().map(String::as_str).collect())
    };
    if words[0] != "topo" {
        return world.run(command);
    }
    let own = env.iter().filter_map(|word| word.split_once('='));
    let env: Vec<(&str, &str)> = around.iter().copied().chain(own).collect();
    world.topo_env(&env, &words[1..])
}

/// Parts a command into words: at spaces, but for those in single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.chars() {
        match (c, words.last_mut()) {
            ('\'', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    assert!(!quoted, "an open quote: {command}");
    words
}

/// Writes down what a person sees of a command.
pub(crate) fn seen(world: &World, command: &str, ran: &Ran) -> String {
    let mut text = format!("$ {command}\n{}", ran.out());
    if !ran.err().is_empty() {
        text.push_str(&format!("--- stderr\n{}", ran.err()));
    }
    if ran.code != 0 {
        text.push_str(&format!("--- exit code {}\n", ran.code));
    }
    // clap leaves spaces in empty lines.
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    masked(&text.replace(&world.dir().display().to_string(), "DIR"))
}

/// How many digits an endpoint's id has.
const ID: usize = 12;

/// Tells whether a word ends in an endpoint's id.
fn is_id(word: &str) -> bool {
    let last = word.rsplit(['.', '/']).next().unwrap_or(word);
    last.len() == ID && is_hex(last)
}

fn is_hex(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Returns the name of a lab's table without the mark of the state directory that is in it.
fn table_of(word: &str) -> Option<&str> {
    let (hash, lab) = word.strip_prefix("topo-")?.split_once('-')?;
    (hash.len() == 16 && is_hex(hash)).then_some(lab)
}

/// Replaces what differs from run to run: measured times, ages, dates, process numbers, random hardware addresses, ids.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut before = "";
    for word in text.split_inclusive(|c: char| c.is_whitespace() || ",;()`\"".contains(c)) {
        let end = word.trim_end_matches(|c: char| c.is_whitespace() || ",;:()`\"".contains(c)).len();
        let (core, rest) = word.split_at(end);
        let fraction = |number: &str| {
            let parts: Vec<&str> = number.split('.').collect();
            parts.len() == 2 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        let digits = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let time = core.strip_suffix("µs").or_else(|| core.strip_suffix("ms")).or_else(|| core.strip_suffix('s'));
        let shown = match core {
            _ if before == "process" && digits(core) => "PID",
            _ if fraction(core) && core != "0.000" && core != "100.000" => "N.N",
            _ if time.is_some_and(fraction) => "TIME",
            _ if core.len() == 10 && digits(core) => "DATE",
            // As wide as it was, for the columns of a table.
            _ if core.len() == 2 && core.ends_with('s') && time.is_some_and(digits) => "Ns",
            _ if core.starts_with("fe80::") => "fe80::X",
            _ if let Some(lab) = table_of(core) => {
                masked.push_str("topo-XXXXXXXX-");
                lab
            }
            _ if let Some(path) = core.strip_suffix(".json").filter(|path| is_id(path)) => {
                masked.push_str(&path[..path.len() - ID]);
                "XXXXXXXXXXXX.json"
            }
            // An endpoint's, alone or at the end of its lab's name.
            _ if is_id(core) => {
                masked.push_str(&core[..core.len() - ID]);
                "XXXXXXXXXXXX"
            }
            _ => core,
        };
        masked.push_str(shown);
        masked.push_str(rest);
        before = core;
    }
    masked
}
