//! The reference, written out of the catalogue: as Markdown for `docs/reference.md`, as plain text for `topo doc`.

use super::catalog::Entry;
use super::failure_kind;
use crate::prim::GROUPS;

/// Writes the reference of all functions as Markdown.
pub fn markdown(primitives: &[Entry], library: &[Entry]) -> String {
    let mut text = String::from(
        "# Reference\n\n\
         Everything that a script can call. This page is made by `topo doc --markdown` from the documentation beside the code,\n\
         and compared with it by a test; `topo doc NAME` shows one entry in the terminal. Every example runs as a test.\n\n\
         A function's first argument may stand before it: `addr(dev, \"10.0.0.1/24\")` and `dev.addr(\"10.0.0.1/24\")` are one call.\n\
         Options come last, in one map: `#{ mtu: 1400 }`; an unknown one is an error.\n",
    );
    for group in GROUPS {
        text.push_str(&format!("\n## {}\n\n{}\n", group.name, group.about));
        for entry in primitives.iter().filter(|entry| entry.group == group.name) {
            text.push_str(&entry_markdown(entry));
        }
    }
    let mut module = "";
    for entry in library {
        if entry.group != module {
            module = &entry.group;
            text.push_str(&format!("\n## Module {module}\n\n`import \"{module}\" as {module};`\n"));
        }
        text.push_str(&entry_markdown(entry));
    }
    text.push_str(&failure_kind::markdown());
    text
}

fn entry_markdown(entry: &Entry) -> String {
    let mut text = format!("\n### {}\n\n", entry.full_name());
    text.push_str(&format!("```text\n{}\n```\n\n{}\n", entry.signatures.join("\n"), entry.doc.about));
    for paragraph in &entry.doc.more {
        text.push_str(&format!("\n{paragraph}\n"));
    }
    if let Some(options) = entry.options {
        text.push_str("\n| option | value | meaning |\n| --- | --- | --- |\n");
        for option in options.options {
            text.push_str(&format!("| `{}` | {} | {} |\n", option.name, option.what, option.doc.trim()));
        }
    }
    if let Some(like) = &entry.doc.like {
        text.push_str(&format!("\nLike {like}\n"));
    }
    if let Some(fails) = &entry.doc.fails {
        text.push_str(&format!("\n{fails}\n"));
    }
    if let Some(example) = &entry.doc.example {
        text.push_str(&format!("\n```rhai\n{example}\n```\n"));
    }
    text
}

/// Writes one entry as plain text, for the terminal.
pub fn plain(entry: &Entry) -> String {
    let mut text = format!("{}\n\n", entry.signatures.join("\n"));
    let mut paragraph = |words: &str| text.push_str(&format!("{}\n\n", wrap(words, "  ")));
    paragraph(&entry.doc.about);
    entry.doc.more.iter().for_each(|more| paragraph(more));
    if let Some(options) = entry.options {
        let width = options.options.iter().map(|option| option.name.len()).max().unwrap_or(0);
        for option in options.options {
            let below = " ".repeat(width + 6);
            let words = wrap(&format!("{} ({})", option.doc.trim(), option.what), &below);
            text.push_str(&format!("    {:width$}  {}\n", option.name, words.trim_start()));
        }
        text.push('\n');
    }
    if let Some(like) = &entry.doc.like {
        text.push_str(&format!("{}\n\n", wrap(&format!("Like {like}"), "  ")));
    }
    if let Some(fails) = &entry.doc.fails {
        text.push_str(&format!("{}\n\n", wrap(fails, "  ")));
    }
    if let Some(example) = &entry.doc.example {
        let lines: String = example.lines().map(|line| format!("    {line}\n")).collect();
        text.push_str(&format!("  Example:\n\n{lines}\n"));
    }
    text
}

/// Breaks a paragraph into lines of at most 96 characters, each after `indent`.
fn wrap(words: &str, indent: &str) -> String {
    const WIDTH: usize = 96;
    let mut lines = vec![indent.to_string()];
    for word in words.split(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line + word.chars().count() < WIDTH => {
                if !last.trim().is_empty() {
                    last.push(' ');
                }
                last.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}
