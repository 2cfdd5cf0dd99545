//! Statements: each is wholly done, or wholly taken back; all that hold can be undone, and saved.

use expect_test::expect;

use super::screen::{CTRL_C, CTRL_D, ENTER, Screen};
use super::{as_root, assert_same};
use crate::unwind_networks::dump::Dump;
use crate::world::World;

/// h -- g, by a statement each.
const PAIR: [&str; 4] = [
    r#"let h = netns("h"); let g = netns("g");"#,
    r#"veth(h["eth0"], g["eth0"]);"#,
    r#"h["eth0"].addr("10.0.0.1/24");"#,
    r#"g["eth0"].addr("10.0.0.2/24");"#,
];

impl Screen {
    fn enter_all(&mut self, statements: &[&str]) {
        statements.iter().for_each(|statement| self.enter(statement));
    }

    /// Enters a statement that prints `busy` before it goes on without end, and presses Ctrl-C then.
    fn interrupt(&mut self, statement: &str) {
        self.begin(statement);
        self.shows("\nbusy\n");
        self.keys(CTRL_C);
        self.prompt();
    }

    /// Enters a statement, and presses Ctrl-C once a shell script of the world's sees it at work.
    fn interrupt_when(&mut self, w: &World, seen: &str, statement: &str) {
        self.begin(statement);
        w.run(seen).ok();
        self.keys(CTRL_C);
        self.prompt();
    }
}

/// Ctrl-C ends the statement that runs, and no more: what it did before is undone, what was there stays, the session too.
#[test]
fn ctrl_c_takes_back_the_statement_that_runs() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        let before = Dump::take(w);
        let asked = "until ip -n h neigh show 10.0.0.99 | grep -q .; do sleep 0.01; done";
        screen.interrupt_when(w, asked, r#"let a = bridge("br0"); h.ping("10.0.0.99", #{ count: 1000 });"#);
        screen.looks(expect![[r#"
            repl> let a = bridge("br0"); h.ping("10.0.0.99", #{ count: 1000 });
            ^C
            error: ping `10.0.0.99` from netns `h`: the run was interrupted
             --> [5]:1:26
              |
            1 | let a = bridge("br0"); h.ping("10.0.0.99", #{ count: 1000 });
              |                          ^^^^
            repl>
        "#]]);
        assert_same(w, &before);
        screen.interrupt(r#"let a = netns("k"); veth(a["eth0"], g["eth1"]); print("busy"); loop {}"#);
        screen.prompt();
        // Where the signal finds it: at the loop, which has just begun, or at what it repeats.
        let text = screen.text();
        let at = |column: &str| format!("^C\nerror: the script was stopped by SIGINT\n --> [6]:1:{column}\n");
        assert!([at("64"), at("69")].iter().any(|wanted| text.contains(wanted.as_str())), "{text}");
        assert_same(w, &before);
        w.run("mkfifo ready").ok();
        screen.interrupt_when(w, "cat ready", r#"let a = netns("k"); h.exec("echo >ready; sleep 1000");"#);
        screen.looks(expect![[r#"
            repl> let a = netns("k"); h.exec("echo >ready; sleep 1000");
            ^C
            error: run `echo >ready; sleep 1000` in netns `h`: the run was interrupted
             --> [7]:1:23
              |
            1 | let a = netns("k"); h.exec("echo >ready; sleep 1000");
              |                       ^^^^
            repl>
        "#]]);
        assert_same(w, &before);
        screen.enter("a");
        screen.looks(expect![[r#"
            repl> a
            error: unknown variable `a`
             --> [8]:1:1
              |
            1 | a
              | ^
            repl>
        "#]]);
        screen.enter(r#"h.ping("10.0.0.2").ok"#);
        screen.looks(expect![[r#"
            repl> h.ping("10.0.0.2").ok
            true
            repl>
        "#]]);
        screen.leave();
    });
}

/// Ctrl-C at the terminal is the session's alone: what an earlier statement left running goes on.
#[test]
fn a_command_does_not_get_the_terminals_ctrl_c() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        let script = "import os, time\nif os.fork() == 0: [os.close(fd) for fd in range(3)]; time.sleep(1000)";
        screen.enter(&format!(
            "let h = netns(\"h\"); h.exec([\"python3\", \"-c\", `{}`]).code",
            script.replace('\n', "${\"\\n\"}")
        ));
        screen.shows("\n0\n");
        let before = Dump::take(w);
        screen.interrupt(r#"print("busy"); loop {}"#);
        screen.shows("stopped by SIGINT");
        assert_same(w, &before);
        screen.leave();
    });
}

/// An error takes back the steps and the variables of its own statement alone.
#[test]
fn an_error_takes_back_its_statement_alone() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        screen.enter("let n = 1;");
        let before = Dump::take(w);
        screen.enter(r#"n = 2; let k = netns("k"); veth(k["eth0"], h["eth1"]); h["eth1"].addr("10.0.0.300/24")"#);
        screen.looks(expect![[r#"
            repl> n = 2; let k = netns("k"); veth(k["eth0"], h["eth1"]); h["eth1"].addr("10.0.0.300/24")
            error: add an address to `eth1` of `h`: expected an address with its prefix length, such as "10.0.0.
            1/24" or "fd00::1/64", got "10.0.0.300/24" (it is not an IP address)
             --> [6]:1:66
              |
            1 | n = 2; let k = netns("k"); veth(k["eth0"], h["eth1"]); h["eth1"].addr("10.0.0.300/24")
              |                                                                  ^^^^
            repl>
        "#]]);
        assert_same(w, &before);
        screen.enter("n");
        screen.looks(expect![[r#"
            repl> n
            1
            repl>
        "#]]);
        screen.enter("k");
        screen.looks(expect![[r#"
            repl> k
            error: unknown variable `k`
             --> [8]:1:1
              |
            1 | k
              | ^
            repl>
        "#]]);
        screen.leave();
    });
}

/// `:undo` makes the kernel, and the variables, what they were before the statement, whatever it changed.
#[test]
fn undo_restores_the_kernel_and_the_variables() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        screen.enter("let n = [1];");
        for statement in [
            r#"n.push(2); let k = netns("k");"#,
            r#"n.clear(); h["eth0"].down();"#,
            r#"h["eth0"].addr("10.9.0.1/24"); h.route("10.8.0.0/16", #{ via: "10.0.0.2" }); h.sysctl("net.ipv4.ip_forward", 1);"#,
            r#"g.masquerade("10.0.0.0/24");"#,
            r#"g["eth0"].rename("eth9");"#,
            r#"g["eth0"].rename("eth1"); g["eth1"].move_to(h);"#,
            r#"h.exec("sleep 1000 >/dev/null 2>&1 &");"#,
        ] {
            let before = Dump::take(w);
            screen.enter(statement);
            assert!(!before.diff(&Dump::take(w)).is_empty(), "{statement} changed nothing:\n{}", screen.text());
            screen.enter(":undo");
            assert_same(w, &before);
            screen.enter("n");
            screen.shows("\n[1]\n");
        }
        screen.enter("k");
        screen.shows("unknown variable `k`");
        screen.leave();
    });
}

/// A removal can't be taken back: `:undo` says so, and undoes nothing behind it.
#[test]
fn a_removal_is_not_undone() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        screen.enter("g.remove();");
        let before = Dump::take(w);
        screen.enter(":undo 2");
        screen.looks(expect![[r#"
            repl> :undo 2
            error: undo 2: this can't be taken back: remove netns `g`
            hint: `:reset` takes back all that is left
            repl>
        "#]]);
        assert_same(w, &before);
        screen.enter(":reset");
        screen.looks(expect![[r#"
            repl> :reset
            5 statements were taken back
            repl>
        "#]]);
        assert_eq!(w.ip("netns list"), "");
        screen.leave_unasked();
    });
}

/// What a statement left running ends with it, also if it failed; what an earlier one left running goes on, with whatever it
/// has started since.
#[test]
fn what_a_statement_left_running_ends_with_it() {
    as_root(|w, _| {
        let running = || w.run("pgrep -a sleep || true").ok().stdout;
        let lives = |seconds: &str| running().contains(&format!("sleep {seconds}\n"));
        w.run("mkfifo more").ok();
        let mut screen = Screen::open(w, &[]);
        screen.enter(r#"let h = netns("h"); h.exec("(read x <more; sleep 2001 & wait) >/dev/null 2>&1 & echo $!");"#);
        screen.enter(r#"h.exec("sleep 2002 >/dev/null 2>&1 &"); throw "a failure""#);
        screen.shows("the script threw");
        assert!(!lives("2002"), "{}", running());
        screen.enter(r#"h.exec("sleep 2003 >/dev/null 2>&1 & echo now >more"); host.exec("setsid sleep 2004 >/dev/null 2>&1 &");"#);
        while !lives("2001") {}
        assert!(lives("2003") && lives("2004"), "{}", running());
        screen.enter(":undo");
        assert!(!lives("2003") && !lives("2004") && lives("2001"), "{}", running());
        screen.enter(":undo");
        assert_eq!(running(), "");
        w.run("rm more").ok();
        screen.leave_unasked();
    });
}

/// Several statements are undone at once, down to an empty lab.
#[test]
fn undo_takes_a_number() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        // Where namespaces are mounted is made with the first one, and goes with the lab.
        screen.enter_all(&["netns(\"first\")", ":undo"]);
        let before = Dump::take(w);
        screen.enter_all(&PAIR);
        screen.enter(":undo 5");
        screen.looks(expect![[r#"
            repl> :undo 5
            error: undo 5: only 4 statements are there to undo
            hint: `:history` lists them
            repl>
        "#]]);
        screen.enter(":undo 4");
        screen.looks(expect![[r#"
            repl> :undo 4
            undone: [2] let h = netns("h"); let g = netns("g");
            undone: [3] veth(h["eth0"], g["eth0"]);
            undone: [4] h["eth0"].addr("10.0.0.1/24");
            undone: [5] g["eth0"].addr("10.0.0.2/24");
            repl>
        "#]]);
        assert_same(w, &before);
        screen.enter(":undo");
        screen.looks(expect![[r#"
            repl> :undo
            error: undo 1: there is nothing to undo
            hint: `:history` lists them
            repl>
        "#]]);
        screen.leave_unasked();
    });
}

/// What a session built, its saved script builds again: the same networks, addresses, routes, rules and settings.
#[test]
fn a_saved_session_builds_the_same_lab() {
    as_root(|w, before| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        screen.enter_all(&[
            "let nothing = 1 // said, and not asked for",
            r#"netns("undone")"#,
            ":undo",
            r#"let sw = bridge("sw")"#,
            "for name in [\"a\", \"b\"] {\n    let n = netns(name);\n    veth(n[\"eth0\"], sw);\n}",
            r#"no_such_function()"#,
            r#"netns_get("a")["eth0"].addr("10.1.0.1/24"); netns_get("a").route("default", #{ via: "10.1.0.254" });"#,
            r#"g.masquerade("10.0.0.0/24"); g.sysctl("net.ipv4.ip_forward", 1)"#,
            r#"check("h reaches g", h.ping("10.0.0.2"))"#,
            ":save lab.rhai",
        ]);
        screen.looks(expect![[r#"
            repl> :save lab.rhai
            saved 10 statements to lab.rhai; `topo run lab.rhai` runs them
            repl>
        "#]]);
        screen.keys(CTRL_D);
        screen.shows("[y/N]");
        screen.keys("y\r");
        assert_eq!(screen.ends(), 0);
        expect![[r#"
            let h = netns("h"); let g = netns("g");
            veth(h["eth0"], g["eth0"]);
            h["eth0"].addr("10.0.0.1/24");
            g["eth0"].addr("10.0.0.2/24");
            let nothing = 1 // said, and not asked for
            ;
            let sw = bridge("sw");
            for name in ["a", "b"] {
                let n = netns(name);
                veth(n["eth0"], sw);
            }
            netns_get("a")["eth0"].addr("10.1.0.1/24"); netns_get("a").route("default", #{ via: "10.1.0.254" });
            g.masquerade("10.0.0.0/24"); g.sysctl("net.ipv4.ip_forward", 1);
            check("h reaches g", h.ping("10.0.0.2"));
        "#]]
        .assert_eq(w.run("cat lab.rhai").ok().out());

        let by_hand = Dump::take(w).of_networks();
        w.topo(&["down", "repl"]).ok();
        w.assert_clean(before);
        w.topo(&["run", "--name", "repl", "lab.rhai"]).ok();
        let by_script = Dump::take(w).of_networks();
        assert_eq!(by_hand.diff(&by_script), "", "by hand (-), by the saved script (+)");
        w.topo(&["down", "repl"]).ok();
        assert!(!by_script.diff(&Dump::take(w).of_networks()).is_empty(), "the dump does not see the lab");
    });
}

/// A file that is there is not written over unasked.
#[test]
fn save_asks_before_it_writes_over_a_file() {
    as_root(|w, _| {
        let file = w.write("lab.rhai", "mine");
        let read = || std::fs::read_to_string(&file).expect("read the file");
        let mut screen = Screen::open(w, &[]);
        screen.enter("let x = 1;");
        for (answer, kept) in [("n\r", true), ("\r", true), (CTRL_C, true), ("y\r", false)] {
            screen.begin(":save lab.rhai");
            screen.shows("[y/N]");
            screen.keys(answer);
            screen.prompt();
            assert_eq!(read() == "mine", kept, "{answer:?}: {}", read());
        }
        screen.looks(expect![[r#"
            repl> :save lab.rhai
            there is a file `lab.rhai`: write over it? [y/N] y
            saved 1 statement to lab.rhai; `topo run lab.rhai` runs them
            repl>
        "#]]);
        assert_eq!(read(), "let x = 1;\n");
        screen.enter(":save no/such/directory.rhai");
        screen.looks(expect![[r#"
            repl> :save no/such/directory.rhai
            error: save `no/such/directory.rhai`: No such file or directory
            repl>
        "#]]);
        screen.leave_unasked();
    });
}

/// What ends on its own, while a line is typed, is told above the line.
#[test]
fn a_process_that_ends_is_told_of_above_the_prompt() {
    as_root(|w, _| {
        w.run("mkfifo end").ok();
        let mut screen = Screen::open(w, &[]);
        screen.enter(r#"let h = netns("h"); h.exec("cat end >/dev/null 2>&1 &");"#);
        screen.clear();
        screen.keys("1 + ");
        screen.shows("repl> 1 +");
        w.run("echo >end; rm end").ok();
        screen.shows("has ended");
        screen.keys("1");
        screen.keys(ENTER);
        screen.looks(expect![[r#"
            process PID, `cat end`, has ended
            repl> 1 + 1
            2
            repl>
        "#]]);
        screen.leave();
    });
}

/// A command runs in the netns, at the same terminal; Ctrl-C is for it.
#[test]
fn sh_runs_a_command_at_the_terminal() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter_all(&PAIR);
        screen.enter(":sh h ip -br addr show eth0 | cut -c1-5; test -t 0 && exit 3");
        screen.looks(expect![[r#"
            repl> :sh h ip -br addr show eth0 | cut -c1-5; test -t 0 && exit 3
            eth0@
            exit code 3
            repl>
        "#]]);
        screen.begin(":sh h cat");
        screen.keys("echoed\r");
        screen.shows("echoed\nechoed");
        screen.keys(CTRL_C);
        screen.looks(expect![[r#"
            repl> :sh h cat
            echoed
            echoed
            repl>
        "#]]);
        screen.enter("1 + 1");
        screen.looks(expect![[r#"
            repl> 1 + 1
            2
            repl>
        "#]]);
        screen.leave();
    });
}
