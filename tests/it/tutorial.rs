//! The tutorial is true: each of its blocks is typed, in order, in one world, and what is printed is what it shows.
//!
//! `UPDATE_EXPECT=1 cargo test --test it tutorial` writes the outputs anew.

use crate::page::{Block, Reader, blocks, check, compare, read};
use crate::stage::{in_used_user_world, in_used_world};
use crate::world::World;

const PAGE: &str = "docs/tutorial.md";
const LESSONS: usize = 12;

/// Types all blocks, and takes away what a reader keeps: the saved script, and the history of what was typed.
fn typed(world: &World) -> Vec<(Block, String)> {
    let mut reader = Reader::new(world);
    let seen: Vec<(Block, String)> = blocks(&read(PAGE))
        .into_iter()
        .map(|block| {
            assert_eq!(block.kind, "console", "a block that no test types");
            let now = reader.types(&block.text);
            (block, now)
        })
        .collect();
    assert!(!reader.is_in_repl(), "the tutorial leaves a session open");
    world.run("rm -rf office.rhai home/.local").ok();
    seen
}

#[test]
fn what_the_tutorial_shows_is_what_is_printed() {
    in_used_world("", |world, _| compare(PAGE, &typed(world)));
}

/// Without root each lab is in a sandbox of its own, and looks the same, but for one word of `topo ls`.
#[test]
fn an_ordinary_user_sees_the_same() {
    // The page is being written anew by the test above.
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        return;
    }
    in_used_user_world("", |world, _| {
        let as_root = |text: &str| text.replace("STATE         ", "STATE  ").replace("up (sandbox)", "up   ");
        let mut seen = typed(world);
        seen.iter_mut().for_each(|(_, now)| *now = as_root(now));
        check(PAGE, &seen);
    });
}

#[test]
fn each_lesson_has_a_block_and_three_sentences() {
    let page = read(PAGE);
    let lessons: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(lessons.len(), LESSONS);
    for (at, lesson) in lessons.into_iter().enumerate() {
        let (title, body) = lesson.split_once('\n').expect("a body");
        assert!(title.starts_with(&format!("{}. ", at + 1)), "lesson {} is called `{title}`", at + 1);
        assert!(!blocks(body).is_empty(), "lesson `{title}` has nothing to type");
        assert_eq!(sentences(body), 3, "the sentences of lesson `{title}`");
    }
}

/// Counts the sentences between the blocks; what stands in backticks ends none.
fn sentences(body: &str) -> usize {
    let prose = body.split("```").step_by(2).collect::<String>();
    let words = prose.split('`').step_by(2).collect::<Vec<_>>().join("code");
    words.split_whitespace().filter(|word| word.ends_with(['.', '?', '!'])).count()
}
