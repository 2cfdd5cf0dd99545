//! What a page shows is what a reader sees: the commands in its blocks are typed, in a shell or at the prompt of `topo repl`, and
//! what is then to be read is compared with the page.
//!
//! | a line of a `console` block | what it is |
//! | --- | --- |
//! | `$ …` | a command for the shell; it goes on as long as a quote is open |
//! | `NAME> …` | a statement for `topo repl`, which an earlier `$ topo repl` began; it goes on as long as a bracket is open |
//! | `… [y/N] …` | the answer to a question |
//! | any other | what is printed |

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::{Running, Tty, World};

/// How long a statement may take. Far beyond what any needs.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a terminal is looked at before the end is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Reads a file of the repository.
pub(crate) fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap_or_else(|err| panic!("read {name}: {err}"))
}

/// A fenced block of a page.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// Returns the fenced blocks of a page.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match (open, line.strip_prefix("```")) {
            (false, Some(kind)) => blocks.push(Block { kind: kind.to_string(), text: String::new() }),
            (true, Some(_)) => {}
            (true, None) => {
                if let Some(block) = blocks.last_mut() {
                    block.text.push_str(&format!("{line}\n"));
                }
                continue;
            }
            (false, None) => continue,
        }
        open = !open;
    }
    assert!(!open, "a block has no end");
    blocks
}

/// Compares what was seen with a page, block by block; with `UPDATE_EXPECT=1`, writes it into the page.
///
/// What no two runs share is masked on both sides: see [`masked`].
pub(crate) fn compare(name: &str, seen: &[(Block, String)]) {
    let stale: Vec<&(Block, String)> = seen.iter().filter(|(block, now)| masked(&block.text) != masked(now)).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() && !stale.is_empty() {
        let mut page = read(name);
        for (block, now) in stale {
            // With its fences, since a block may begin as another does.
            let fenced = |text: &str| format!("```{}\n{text}```\n", block.kind);
            page = page.replacen(&fenced(&block.text), &fenced(now), 1);
        }
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), page).expect("write the page");
        return;
    }
    check(name, seen);
}

/// Compares what was seen with a page, block by block.
pub(crate) fn check(name: &str, seen: &[(Block, String)]) {
    for (block, now) in seen {
        assert_eq!(
            masked(now),
            masked(&block.text),
            "what is printed (left) is not what {name} shows (right); UPDATE_EXPECT=1 writes it anew"
        );
    }
}

/// Replaces measured times: those of a ping, `rtt_avg_ms: 0.04`, and ages, `3s`.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut before = "";
    for word in text.split_inclusive(char::is_whitespace) {
        let core = word.trim_end();
        let number = core.strip_suffix('s').unwrap_or(core);
        let measured = number.parse::<f64>().is_ok();
        let time = before.starts_with("rtt_") && before.ends_with("_ms:");
        masked.push_str(if measured && (time || number != core) { "TIME" } else { core });
        masked.push_str(&word[core.len()..]);
        before = if core.is_empty() { before } else { core };
    }
    masked
}

/// Somebody who types what a page shows, in a world.
pub(crate) struct Reader<'w> {
    world: &'w World,
    repl: Option<Repl>,
}

/// A line, or some, that is typed.
enum Typed {
    Shell(String),
    Repl(String),
}

impl<'w> Reader<'w> {
    pub(crate) fn new(world: &'w World) -> Reader<'w> {
        Reader { world, repl: None }
    }

    /// Types a block's commands and returns all that is then to be seen, as the block shows it.
    pub(crate) fn types(&mut self, block: &str) -> String {
        let mut seen = String::new();
        for typed in typed(block) {
            match typed {
                Typed::Shell(line) if is_repl(&line) => {
                    assert!(self.repl.is_none(), "`{line}`, and the session before it has not ended");
                    let (repl, said) = Repl::start(self.world, &line);
                    seen.push_str(&format!("$ {line}\n{said}"));
                    self.repl = Some(repl).filter(Repl::goes_on);
                }
                Typed::Shell(line) => seen.push_str(&format!("$ {line}\n{}", self.shell(&line))),
                Typed::Repl(text) => {
                    let repl = self.repl.as_mut().unwrap_or_else(|| panic!("no session is there to take `{text}`"));
                    seen.push_str(&repl.types(&text));
                    self.repl = self.repl.take().filter(Repl::goes_on);
                }
            }
        }
        // `ip` ends lines with a space, which no page keeps.
        seen.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// Tells whether a session is open.
    pub(crate) fn is_in_repl(&self) -> bool {
        self.repl.is_some()
    }

    fn shell(&self, line: &str) -> String {
        let topo = self.world.program().display();
        self.world.run(&format!("topo() {{ {topo} \"$@\"; }}\n{{ {line}; }} 2>&1 || true")).ok().stdout
    }
}

fn is_repl(line: &str) -> bool {
    line == "topo repl" || line.starts_with("topo repl ")
}

fn typed(block: &str) -> Vec<Typed> {
    let mut all = Vec::new();
    let mut lines = block.lines();
    while let Some(line) = lines.next() {
        let command = line.strip_prefix("$ ").map(|rest| (rest, true));
        let statement = || after_prompt(line).map(|rest| (rest, false));
        let Some((first, is_shell)) = command.or_else(statement) else { continue };
        let mut text = first.to_string();
        let goes_on = |text: &str| if is_shell { text.matches('\'').count() % 2 == 1 } else { depth(text) > 0 };
        while goes_on(&text) {
            let next = lines.next().unwrap_or_else(|| panic!("a command has no end: {text}"));
            text.push_str(&format!("\n{next}"));
        }
        all.push(if is_shell { Typed::Shell(text) } else { Typed::Repl(text) });
    }
    all
}

/// Returns the commands of a block that has no others than those for the shell.
pub(crate) fn typed_in_shell(block: &str) -> Vec<String> {
    let shell = |typed| match typed {
        Typed::Shell(line) => line,
        Typed::Repl(line) => panic!("`{line}` is none for the shell"),
    };
    typed(block).into_iter().map(shell).collect()
}

/// Returns what stands behind the prompt of a session, or behind a question.
fn after_prompt(line: &str) -> Option<&str> {
    if let Some((_, answer)) = line.split_once("[y/N] ") {
        return Some(answer);
    }
    let (name, rest) = line.split_once("> ")?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_name && !name.is_empty()).then_some(rest)
}

/// Returns how many brackets of a text are open.
fn depth(text: &str) -> i32 {
    text.chars().map(|c| i32::from("([{".contains(c)) - i32::from(")]}".contains(c))).sum()
}

/// A session of `topo repl` on a terminal of its own. The terminal is a dumb one, so that what it shows are lines of text.
struct Repl {
    tty: Tty,
    running: Running,
    /// What it waits behind: its prompt, or a question; nothing once it has ended.
    prompt: String,
}

impl Repl {
    /// Starts a session; returns it with what it says before its first prompt.
    fn start(world: &World, line: &str) -> (Repl, String) {
        let tty = Tty::open(40, 100);
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let running = world.start_topo_at(&tty, &[("TERM", "dumb")], &words);
        let mut repl = Repl { tty, running, prompt: String::new() };
        let said = repl.listen(Vec::new());
        (repl, said)
    }

    fn goes_on(&self) -> bool {
        !self.prompt.is_empty()
    }

    /// Types lines; returns the prompt before them, the lines as the terminal echoes them, and what is said then.
    fn types(&mut self, text: &str) -> String {
        let prompt = std::mem::take(&mut self.prompt);
        let (keys, mut heard) = (format!("{text}\n"), Vec::new());
        let mut rest = keys.as_bytes();
        while !rest.is_empty() {
            rest = &rest[self.tty.exchange(rest, &mut heard, LOOK)..];
        }
        format!("{prompt}{}", self.listen(heard))
    }

    /// Reads until the session waits for input, or has ended.
    fn listen(&mut self, mut heard: Vec<u8>) -> String {
        let began = Instant::now();
        loop {
            let said = String::from_utf8_lossy(&heard).replace('\r', "");
            let last = said.rsplit('\n').next().unwrap_or("");
            if after_prompt(last) == Some("") {
                let (said, prompt) = said.split_at(said.len() - last.len());
                self.prompt = prompt.to_string();
                return said.to_string();
            }
            assert!(began.elapsed() < DEADLINE, "no prompt comes after:\n{said}");
            // What it said before its end can be read after that.
            let (ended, length) = (self.running.code().is_some(), heard.len());
            self.tty.exchange(&[], &mut heard, LOOK);
            if ended && heard.len() == length {
                return said;
            }
        }
    }
}

fn seen(shown: &str, now: &str) -> [(Block, String); 1] {
    [(Block { kind: "console".into(), text: shown.into() }, now.into())]
}

#[test]
#[should_panic(expected = "is not what the page shows")]
fn a_stale_output_is_found() {
    check("the page", &seen("$ topo ls\nno lab is up\n", "$ topo ls\nno lab\n"));
}

#[test]
fn times_may_differ() {
    let text = |ms: &str, age: &str| format!("rtt_avg_ms:   {ms}\nNAME  AGE  SCRIPT\nlan   {age}   lan.rhai\n");
    check("the page", &seen(&text("0.04", "0s"), &text("1.2", "3s")));
}

/// A command and a statement may have several lines; answers are typed too.
#[test]
fn what_is_typed_is_told_from_what_is_printed() {
    let block = "$ echo 'a\nb' c\na\nb c\nrepl> f(\n    1)\n --> [1]:1:1\nrepl> :quit\nkeep lab? [y/N] n\n";
    let all: Vec<String> = typed(block)
        .into_iter()
        .map(|typed| match typed {
            Typed::Shell(line) => format!("$ {line}"),
            Typed::Repl(text) => text,
        })
        .collect();
    assert_eq!(all, ["$ echo 'a\nb' c", "f(\n    1)", ":quit", "n"]);
}
