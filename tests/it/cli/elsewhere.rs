//! Words of other tools and languages: what is typed by those who know Mininet, containerlab, Python or a shell leads on.

use super::as_root;

/// What somebody types, and what the hint says to type.
const TYPED: &[(&str, &str)] = &[
    ("exit", "`exit(0)` ends a script; at the prompt, `:quit` or Ctrl-D leaves"),
    ("quit", ":quit"),
    ("help", ":help"),
    ("x = 5", "let x = 5"),
    ("f\"h{1}\"", "backticks"),
    ("for i in range(5) {}", "`0..5` counts from 0 to 4"),
    ("def", "fn name(a, b)"),
    ("None", "nothing is `()`"),
    ("True", "write `true`"),
    ("echo", "`print(value);`"),
    ("import os", "`import \"NAME\" as NAME;` reads a module: bird"),
    ("pingall", "ping_all([h1, h2])"),
    ("let h1 = netns(\"h1\"); h1 ping h2", "`h1.ping(\"h2\")`"),
    ("let h1 = netns(\"h1\"); h1 ip a", "`h1.exec(\"ip a\")`"),
    ("let h1 = netns(\"h1\"); h1.cmd(\"ls\")", "`h1.exec(\"ls\")`"),
    ("let h1 = netns(\"h1\"); h1.ifconfig()", "`h1.devs()`"),
    ("let h1 = netns(\"h1\"); h1.adress(\"10.0.0.1/24\")", ".addr(\"10.0.0.1/24\")"),
    ("let h1 = netns(\"h1\"); if h1.isalive {}", "`is_alive()`"),
    ("let h1 = netns(\"h1\"); h1.isAlive()", "did you mean `is_alive`?"),
    (
        "import \"lan\" as lan; lan::star(\"sw\", 3, \"10.0.0.0/24\")",
        "`net(\"10.0.0.0/24\")` makes a network of a text",
    ),
];

#[test]
fn what_is_typed_by_habit_leads_on() {
    as_root(|w| {
        for (typed, hint) in TYPED {
            println!("{typed}");
            let ran = w.topo(&["run", "--rm", "-e", typed]);
            assert_ne!(ran.code, 0, "{typed}");
            ran.says("hint: ").says(hint);
            assert!(!ran.err().contains("Range<"), "{}", ran.err());
        }
    });
}

#[test]
fn commands_of_other_tools_lead_on() {
    as_root(|w| {
        for (typed, command) in
            [("destroy", "down"), ("up", "run"), ("deploy", "run"), ("lab", "ls"), ("inspect", "show")]
        {
            w.topo(&[typed]).fails(2).says(&format!("tip: `topo {command}` does that here"));
        }
        w.topo(&["test"]).fails(2).says("there is no such file or directory here").says("those below `tests`");
    });
}

/// `topo doc` knows modules, other tools' words, and what documentation speaks of.
#[test]
fn documentation_is_found_by_other_words() {
    as_root(|w| {
        w.topo(&["doc", "bird"]).ok().says("`import \"bird\" as bird;`").says("bird::run");
        w.topo(&["doc", "network"]).ok().says("network::create");
        for (word, here) in [("delay", "shape"), ("firewall", "filter"), ("cable", "veth"), ("switch", "bridge")] {
            w.topo(&["doc", word]).ok().says(&format!("`{word}` is `{here}` here."));
        }
        w.topo(&["doc", "masq"]).ok().says("These speak of it").says("masquerade ");
        w.topo(&["doc", "qqqq"]).fails(1).says("`topo doc` lists what there is");
    });
}

/// Words that other prompts know without a colon do here what they do there, unless a variable has the name.
#[test]
fn a_prompt_knows_the_words_of_others() {
    as_root(|w| {
        w.write("typed", "let a = netns(\"a\");\nls\n?\nclear\nlet quit = 5;\nquit\nexit\nprint(\"not reached\");\n");
        let ran = w.run(&format!("{} repl <typed", w.program().display())).ok();
        ran.says("└─ a").says(":undo [N]").says("5");
        assert!(!ran.out().contains("not reached"), "{}", ran.out());
    });
}
