//! The commands of a session, piped in: what they say, and what they say of a mistake.

use expect_test::expect;

use super::as_root;
use super::piped::{piped, piped_in};

#[test]
fn unknown_commands_get_the_nearest_name() {
    piped(
        ":udno\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: run `:udno`: there is no such command
        hint: did you mean `:undo`?
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        ":\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: run `:`: there is no such command
        hint: `:help` lists the commands
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        ":xyzzy\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: run `:xyzzy`: there is no such command
        hint: `:help` lists the commands
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        ":ls everything\n",
        expect![[r#"
            $ topo repl
            --- stderr
            error: run `:ls everything`: it takes nothing more
            hint: `:ls`
            stopped at line 1 of standard input
            --- exit code 1
        "#]],
    );
    piped(
        ":save\n",
        expect![[r#"
            $ topo repl
            --- stderr
            error: run `:save`: it takes the name of a file
            hint: `:save FILE`
            stopped at line 1 of standard input
            --- exit code 1
        "#]],
    );
    piped(
        ":trace sometimes\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: run `:trace sometimes`: it takes `on` or `off`, or nothing to change over
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        ":help veht\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: find help on `veht`: nothing has this name
        hint: did you mean `veth`?
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "netns(\"h1\");\n:sh h2 true\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: find netns `h2`: the lab has no such netns
        hint: did you mean `h1`?
        stopped at line 2 of standard input
        --- exit code 1
    "#]],
    );
}

#[test]
fn undo_and_history() {
    piped(
        r#"let x = 1;
netns("h");
x = 2;
for i in 0..2 {
    netns(`k${i}`);
}
:history
:undo
:undo 2
:history
x
"#,
        expect![[r#"
            $ topo repl
            [1] let x = 1;
            [2] netns("h");
            [3] x = 2;
            [4] for i in 0..2 { …
            [1] let x = 1;
            1
            --- stderr
            undone: [4] for i in 0..2 { …
            undone: [2] netns("h");
            undone: [3] x = 2;
        "#]],
    );
    piped(
        ":undo\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: undo 1: there is nothing to undo
        hint: `:history` lists them
        stopped at line 1 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "let x = 1;\n:undo 2\n",
        expect![[r#"
        $ topo repl
        --- stderr
        error: undo 2: only 1 statement is there to undo
        hint: `:history` lists them
        stopped at line 2 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "let x = 1;\n:undo none\n",
        expect![[r#"
            $ topo repl
            --- stderr
            error: undo none: it takes a number of statements, from 1
            hint: `:undo 2`
            stopped at line 2 of standard input
            --- exit code 1
        "#]],
    );
    piped(
        "let x = 1;\n:undo 0\n",
        expect![[r#"
            $ topo repl
            --- stderr
            error: undo 0: it takes a number of statements, from 1
            hint: `:undo 2`
            stopped at line 2 of standard input
            --- exit code 1
        "#]],
    );
}

#[test]
fn trace_and_time() {
    piped(
        r#":trace on
let h = netns("h");
veth(h["eth0"], bridge("br0"));
:undo
:trace
netns("g");
:time on
1 + 1;
:time off
1 + 1;
"#,
        expect![[r#"
            $ topo repl
            --- stderr
            trace is on
            # add netns `h`  ([1]:1:9)
            + ip netns add h
            + ip -n h link set dev lo up
            # add bridge `br0`  ([2]:1:17)
            + ip link add br0 type bridge
            + ip link set dev br0 up
            # add veth `eth0` of `h` -- `h-eth0`  ([2]:1:1)
            + ip link add h-eth0 type veth peer name eth0 netns h
            + ip link set dev h-eth0 master br0 up
            + ip -n h link set dev eth0 up
            - undo: add veth `eth0` of `h` -- `h-eth0`
            - undo: add bridge `br0`
            undone: [2] veth(h["eth0"], bridge("br0"));
            trace is off
            time is on
            TIME
            time is off
        "#]],
    );
}

#[test]
fn reset_forgets_all() {
    piped(
        "let x = 1;\nnetns(\"h\");\nfn f() { 1 }\n:reset\n:history\n:ls\nf()\n",
        expect![[r#"
        $ topo repl
        repl: 0 netns, 0 devices
        --- stderr
        3 statements were taken back
        error: unknown function `f`
         --> [4]:1:1
          |
        1 | f()
          | ^
          |
          = hint: `topo doc` lists the functions
        stopped at line 7 of standard input
        --- exit code 1
    "#]],
    );
    piped(
        "let x = 1;\n:reset\nx\n",
        expect![[r#"
        $ topo repl
        --- stderr
        1 statement was taken back
        error: unknown variable `x`
         --> [2]:1:1
          |
        1 | x
          | ^
        stopped at line 3 of standard input
        --- exit code 1
    "#]],
    );
}

#[test]
fn help_is_that_of_the_reference() {
    piped(
        ":help veth\n",
        expect![[r#"
            $ topo repl
            veth(end: any, other: any) -> array
            veth(end: any, other: any, options: map) -> array

              Lays a cable: a veth pair whose ends are made where they belong, and come up.

              An end is a device reference (`h["eth0"]`), a bridge, which gets a port that is named after
              the other end, or a plain name for a device of the host. Returns the two devices.

                mtu       The MTU of both ends; 1500 unless given. (a number of bytes from 68 to 65535)
                up        Whether both ends come up; true unless given. (true or false)
                mac       The hardware address of the first end; a random one of our own range unless given.
                          (a hardware address such as "02:00:00:00:00:01")
                peer_mac  The hardware address of the second end. (a hardware address such as
                          "02:00:00:00:00:01")
                port      What an end in a bridge is set to as its port: a map of options, as `port` takes
                          them. (a map of a port's options, such as #{ pvid: 10 })
                given     That the first end is given to another program, which moves and renames it: it
                          stays down, and the lab knows the second one alone. (true or false)

              Like `ip link add A netns N1 type veth peer name B netns N2`, then `ip link set … up` for
              both.

              Fails with `exists` where a name is taken, with `invalid` for both ends the same, and with
              `gone` where a namespace was removed.

              Example:

                let a = netns("a");
                let b = netns("b");
                veth(a["eth0"], b["eth0"], #{ mtu: 1400 });
                a["eth0"].addr("10.0.0.1/24");
                b["eth0"].addr("10.0.0.2/24");
                assert(a.ping("10.0.0.2").ok);
                assert(b["eth0"].mtu == 1400);

        "#]],
    );
    piped(
        ":help undo\n:help :undo\n",
        expect![[r#"
        $ topo repl
        :undo [N]
        Takes the last statement back, or the last N: its steps and its variables.
        :undo [N]
        Takes the last statement back, or the last N: its steps and its variables.
    "#]],
    );
    piped(
        ":help\n",
        expect![[r#"
            $ topo repl
            :help [NAME]         Shows the commands, or what NAME does.
            :ls                  Shows what the lab holds, as a tree.
            :undo [N]            Takes the last statement back, or the last N: its steps and its variables.
            :history             Lists the statements that hold.
            :save FILE           Writes the statements that hold as a script that builds the lab again.
            :load FILE           Runs a script here, as one statement.
            :trace [on|off]      Shows each step with the commands that do the same.
            :time [on|off]       Shows how long each statement takes.
            :sh NETNS [COMMAND]  Runs a shell in a netns, or one command line.
            :reset               Takes all back that this session made, and forgets its variables.
            :clear               Clears the screen.
            :quit                Ends the session.

            Anything else is Rhai: `let h = netns("h1")` makes a namespace, `h` shows it, `topo doc` lists what there is.
        "#]],
    );
}

/// A script that is loaded is one statement; an error in it is told of at its own line, and takes all of it back.
#[test]
fn load_tells_the_line_of_an_error() {
    as_root(|w, _| {
        w.write("good.rhai", "// A lab.\nlet h = netns(\"h\");\nfn twice(x) { x * 2 }\nh[\"lo\"]");
        w.write("bad.rhai", "let g = netns(\"g\");\n\nfn fails(h) {\n    h.ping(12);\n}\n\nfails(g);\n");
        piped_in(
            w,
            ":load good.rhai\ntwice(21)\n:history\n:load bad.rhai\n",
            expect![[r#"
                $ topo repl
                dev lo of h
                42
                [1] :load good.rhai
                --- stderr
                error: ping from netns `g`: expected an IP address such as "10.0.0.1" or "fd00::1", or a netns or its name, got 12
                 --> bad.rhai:4:7
                  |
                4 |     h.ping(12);
                  |       ^^^^
                  |
                 ::: bad.rhai:7:1
                  |
                7 | fails(g);
                  | ----- called from here
                stopped at line 4 of standard input
                --- exit code 1
            "#]],
        );
        piped_in(
            w,
            ":load no-such.rhai\n",
            expect![[r#"
            $ topo repl
            --- stderr
            error: read the script `no-such.rhai`: No such file or directory
            stopped at line 1 of standard input
            --- exit code 1
        "#]],
        );
        w.write("worse.rhai", "let g = netns(\"g\");\nlet h = ;\n");
        piped_in(
            w,
            ":load worse.rhai\n",
            expect![[r#"
            $ topo repl
            --- stderr
            error: unexpected ';'
             --> worse.rhai:2:9
              |
            2 | let h = ;
              |         ^
            stopped at line 1 of standard input
            --- exit code 1
        "#]],
        );
    });
}

/// A file that is there is not written over: nobody is there to be asked.
#[test]
fn save_writes_over_nothing() {
    as_root(|w, _| {
        piped_in(
            w,
            "let x = 1 // one\n\"text\"\n:save new.rhai\n:sh host cat new.rhai\n",
            expect![[r#"
            $ topo repl
            "text"
            let x = 1 // one
            ;
            --- stderr
            saved 1 statement to new.rhai; `topo run new.rhai` runs them
        "#]],
        );
        let file = w.write("mine.rhai", "mine");
        piped_in(
            w,
            "let x = 1;\n:save mine.rhai\n",
            expect![[r#"
            $ topo repl
            --- stderr
            error: save `mine.rhai`: there is a file of this name
            hint: take another name, or remove it
            stopped at line 2 of standard input
            --- exit code 1
        "#]],
        );
        assert_eq!(std::fs::read_to_string(file).expect("read the file"), "mine");
    });
}

/// The values of variables are kept for the last hundred statements.
#[test]
fn undo_has_an_end() {
    let lines = "x += 1;\n".repeat(101);
    piped(
        &format!("let x = 0;\n{lines}:undo 101\n"),
        expect![[r#"
        $ topo repl
        --- stderr
        error: undo 101: the values of variables are kept for the last 100 statements
        hint: `:reset` takes all back
        stopped at line 103 of standard input
        --- exit code 1
    "#]],
    );
    as_root(|w, _| {
        let ran = w.topo_stdin(&format!("let x = 0;\n{lines}:undo 100\nx\n"), &["repl"]).ok();
        assert_eq!(ran.out(), "1\n");
    });
}
