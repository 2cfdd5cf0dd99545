//! What helps while a line is typed, at terminals of all sorts.

use expect_test::expect;

use super::as_root;
use super::screen::{CTRL_C, Desk, ENTER, Screen, TAB, UP};

impl Screen {
    /// Presses Tab twice behind `typed`, and returns the list that this shows.
    fn listed(&mut self, typed: &str) -> String {
        self.clear();
        self.keys(typed);
        self.keys(TAB);
        self.keys(TAB);
        let line = format!("repl> {typed}");
        // The line is written again below the list.
        self.until("no list", |screen| screen.row() > 0 && screen.line().starts_with(line.trim_end()));
        let text = self.text();
        let rows = text.lines().take(self.row().into()).skip(1);
        let list = rows.map(|row| format!("{row}\n")).collect();
        self.give_up();
        list
    }

    /// Presses Tab behind `typed`, and waits until it is `completed`.
    fn completes(&mut self, typed: &str, completed: &str) {
        self.clear();
        self.keys(typed);
        self.keys(TAB);
        let line = format!("repl> {completed}");
        self.until(&format!("no `{line}`"), |screen| screen.line().starts_with(line.trim_end()));
        self.give_up();
    }

    /// Gives the line up.
    fn give_up(&mut self) {
        self.keys(CTRL_C);
        self.prompt();
    }

    /// What there is to complete is collected beside the first prompt.
    fn knows_all(&mut self) {
        let mut known = false;
        while !known {
            self.clear();
            self.keys("netns_get(x");
            self.shows("(x");
            known = self.text().contains("-> Netns");
            self.give_up();
        }
    }
}

/// Two presses of Tab list what can stand at the cursor, whatever that is.
#[test]
fn tab_lists_what_can_stand_at_the_cursor() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.knows_all();
        screen.enter(r#"let h = netns("h"); veth(h["eth0"], h["eth1"]);"#);
        let listed = [
            ("functions", "net"),
            ("a variable, and functions", "h"),
            ("methods of a namespace", "h."),
            ("methods of a device", r#"h["eth0"]."#),
            ("options", r#"veth(h["a"], h["b"], #{"#),
            ("options that are not there yet", r#"veth(h["a"], h["b"], #{ mtu: 1400, "#),
            ("devices of the namespace", r#"h[""#),
            ("modules", r#"import ""#),
            ("commands", ":"),
        ];
        let seen: String = listed.map(|(what, typed)| format!("{what}: {typed}\n{}\n", screen.listed(typed))).concat();
        expect![[r#"
            functions: net
            net(           netns(         netns_get(     netns_of(      netns_of_pid(  netns_open(

            a variable, and functions: h
            h           hash_of(    host        host_only(

            methods of a namespace: h.
            bridge(       forward(      lo_up()       neighs()      routes()      start(
            devs()        free_port(    mappings()    ping(         rule(         sysctl(
            dnat(         http(         masquerade(   remove()      rules()       tcp(
            exec(         identity      mtu(          resolver(     sees(         throughput(
            filter(       is_alive()    name          resolvers()   serve(        trace(
            filters()     let_through(  neigh(        route(        snat(         udp(

            methods of a device: h["eth0"].
            addr(        autoconf(    hairpin(     mac          netns        rename(      vlans()
            addrs()      detach(      index        move_to(     owner        shape(
            announce()   down()       kernel_name  mtu          port(        state
            attach(      fdb(         kind         name         ports()      up()

            options: veth(h["a"], h["b"], #{
            given:      mac:        mtu:        peer_mac:   port:       up:

            options that are not there yet: veth(h["a"], h["b"], #{ mtu: 1400, 
            given:      mac:        peer_mac:   port:       up:

            devices of the namespace: h["
            eth0  eth1  lo

            modules: import "
            bird       dhcp       expect     nat        router     topology
            container  dns        lan        network    segment    wan

            commands: :
            :clear    :history  :ls       :reset    :sh       :trace
            :help     :load     :quit     :save     :time     :undo

        "#]]
        .assert_eq(&seen);
        screen.leave();
    });
}

/// One press of Tab completes as far as there is one way to.
#[test]
fn tab_completes_what_is_clear() {
    as_root(|w, _| {
        w.write("lab.rhai", "netns(\"x\");");
        let mut screen = Screen::open(w, &[]);
        screen.knows_all();
        screen.enter(r#"let host1 = netns("h"); veth(host1["uplink"], host1["eth1"]);"#);
        screen.completes("bri", "bridge(");
        screen.completes("host1.pi", "host1.ping(");
        screen.completes(r#"host1["upl"#, r#"host1["uplink"#);
        screen.completes(r#"host1.ping("10.0.0.1", #{ cou"#, r#"host1.ping("10.0.0.1", #{ count: "#);
        screen.completes(r#"import "netw"#, r#"import "network"#);
        screen.completes(":und", ":undo");
        screen.completes(":load la", ":load lab.rhai");
        screen.completes(":sh ", ":sh h");
        screen.completes(":help masq", ":help masquerade");
        screen.leave();
    });
}

/// Behind the bracket of a call stands how it is called; it is no part of the line.
#[test]
fn a_hint_shows_how_a_function_is_called() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.knows_all();
        screen.enter(r#"let h = netns("h");"#);
        for (typed, hint) in [
            ("h.ping(", "h.ping(  netns.ping(to: any) -> map"),
            (r#"h.ping("10.0.0.1", "#, "  netns.ping(to: any, options: map) -> map"),
            (r#"h["eth0"].addr("#, "  dev.addr("),
            ("veth(", "veth(  veth(end: any, other: any)"),
            (":undo", ":undo  Takes the last statement back"),
        ] {
            screen.clear();
            screen.keys(typed);
            screen.shows(hint);
            screen.give_up();
        }
        screen.clear();
        screen.keys(r#"type_of(netns("g""#);
        screen.shows("  netns(");
        screen.keys("))");
        screen.keys(ENTER);
        screen.looks(expect![[r#"
            repl> type_of(netns("g"))
            "Netns"
            repl>
        "#]]);
        screen.leave();
    });
}

/// A statement goes on over lines while something in it is open, and runs once it is whole.
#[test]
fn a_statement_of_several_lines_runs_once_it_is_whole() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.clear();
        for (at, line) in ["for i in 0..3 {", "    netns(`h${i}`);"].iter().enumerate() {
            screen.keys(line);
            screen.keys(ENTER);
            screen.until("the line is not taken", |screen| usize::from(screen.row()) == at + 1);
        }
        assert_eq!(w.ip("netns list"), "");
        screen.keys("}");
        screen.keys(ENTER);
        screen.looks(expect![[r#"
            repl> for i in 0..3 {
                netns(`h${i}`);
            }
            repl>
        "#]]);
        assert_eq!(w.ip("netns list").lines().count(), 3);
        screen.leave();
    });
}

/// Two empty lines end a statement that is not whole: then is said what is missing.
#[test]
fn two_empty_lines_end_what_is_not_whole() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.clear();
        screen.keys("let a = [1,\r\r\r");
        screen.until("the statement is not read", |screen| screen.row() > 3);
        screen.looks(expect![[r#"
            repl> let a = [1,


            error: expecting ']' to end this array literal
             --> [1]:2:2
              |
            2 |
              | ^
            repl>
        "#]]);
        screen.leave_unasked();
    });
}

/// Ctrl-C at the prompt gives up the line, of however many rows, and nothing else.
#[test]
fn ctrl_c_gives_up_the_line() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter("let x = 1;");
        screen.clear();
        screen.keys(r#"if x == 1 {"#);
        screen.keys(ENTER);
        screen.keys(r#"netns("h");"#);
        screen.shows(r#"netns("h");"#);
        screen.keys(CTRL_C);
        screen.prompt();
        screen.keys(CTRL_C);
        screen.until("no new prompt", |screen| screen.is_at_prompt() && screen.row() > 2);
        screen.keys(":history");
        screen.keys(ENTER);
        screen.shows("[1]");
        screen.looks(expect![[r#"
            repl> if x == 1 {
            netns("h");
            repl>
            repl> :history
            [1] let x = 1;
            repl>
        "#]]);
        assert_eq!(w.ip("netns list"), "");
        screen.leave_unasked();
    });
}

/// What was typed in a session is there in the next one.
#[test]
fn the_history_is_kept_over_sessions() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter("let first = 1;");
        screen.enter("let x = [1,\n2];");
        screen.enter(":history");
        screen.leave_unasked();
        let mut screen = Screen::open(w, &[]);
        // In a statement of two lines, the arrow first goes to its first line.
        for (up, shown) in [(1, ":history"), (1, "let x = [1,\n2];"), (2, "let first = 1;")] {
            screen.keys(&UP.repeat(up));
            screen.shows(&format!("repl> {shown}"));
        }
        screen.keys(ENTER);
        screen.until("the line is not run", |screen| screen.row() > 1 && screen.is_at_prompt());
        screen.enter("first + 1");
        screen.looks(expect![[r#"
            repl> first + 1
            2
            repl>
        "#]]);
        screen.leave_unasked();
        let kept =
            w.run("cat home/.local/state/toposcript/history; stat -c %a home/.local/state/toposcript/history").ok();
        expect![[r#"
            #V2
            let first = 1;
            let x = [1,\n2];
            :history
            let first = 1;
            first + 1
            600
        "#]]
        .assert_eq(kept.out());
    });
}

/// A history that can't be kept is told of once, and changes nothing else.
#[test]
fn a_session_goes_on_without_its_history() {
    as_root(|w, _| {
        w.write("home/.local", "a file where a directory should be");
        let mut screen = Screen::open(w, &[]);
        screen.enter("let x = 20;");
        screen.shows("the history is not kept: `");
        screen.enter("x + 1");
        screen.looks(expect![[r#"
            repl> x + 1
            21
            repl>
        "#]]);
        assert_eq!(screen.written().matches("history is not kept").count(), 1, "{}", screen.written());
        screen.leave_unasked();
    });
}

/// Strings and keywords have colours, hints are dim; `NO_COLOR` leaves all of that out.
#[test]
fn colours_are_left_out_if_asked_for() {
    as_root(|w, _| {
        for (no_colour, coloured) in [("", true), ("1", false)] {
            let env = [("TERM", "xterm-256color"), ("NO_COLOR", no_colour)];
            let mut screen = Screen::start(w, &Desk { env: &env, ..Desk::USUAL }, &[]);
            screen.prompt();
            screen.knows_all();
            screen.enter(r#"let s = "text"; check("it is so", true);"#);
            screen.enter("nothing");
            screen.clear();
            screen.keys("netns(");
            screen.shows("-> Netns");
            let written = screen.written();
            let codes = [
                ("a keyword", "\x1b[35mlet\x1b[0m"),
                ("a string", "\x1b[32m\"text\"\x1b[0m"),
                ("a check", "\x1b[1;32mok"),
                ("a hint", "\x1b[2m  netns("),
            ];
            for (what, code) in codes {
                assert_eq!(written.contains(code), coloured, "{what} with NO_COLOR={no_colour}: {written:?}");
            }
            assert_eq!(sets_colours(&written), coloured, "{written:?}");
            screen.give_up();
            screen.leave_unasked();
        }
    });
}

/// Tells whether a text has an escape sequence that sets a colour or another look, `ESC [ … m`.
fn sets_colours(text: &str) -> bool {
    text.split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

/// A dumb terminal has no editor: lines are read as they come, and no escape sequence is written.
#[test]
fn a_dumb_terminal_works() {
    as_root(|w, _| {
        let env = [("TERM", "dumb"), ("NO_COLOR", "")];
        let mut screen = Screen::start(w, &Desk { env: &env, ..Desk::USUAL }, &[]);
        screen.prompt();
        screen.keys("for i in 0..2 {\n");
        screen.keys("netns(`h${i}`);\n}\n");
        screen.until("no prompt", |screen| screen.row() > 3 && screen.is_at_prompt());
        screen.keys(":ls\n");
        screen.shows("h1");
        screen.looks(expect![[r#"
            a new lab, `repl`; `:help` lists the commands
            repl> for i in 0..2 {
            netns(`h${i}`);
            }
            repl> :ls
            repl: 2 netns, 0 devices
            ├─ h0
            └─ h1
            repl>
        "#]]);
        assert!(!screen.written().contains('\x1b'), "{:?}", screen.written());
        screen.leave();
    });
}

/// A terminal of 20 columns shows all of a long line, of a list, and of an error.
#[test]
fn a_narrow_terminal_works() {
    as_root(|w, _| {
        let mut screen = Screen::start(w, &Desk { rows: 30, columns: 20, ..Desk::USUAL }, &[]);
        screen.prompt();
        screen.knows_all();
        screen.enter(r#"let h = netns("h"); veth(h["eth0"], h["eth1"]);"#);
        screen.looks(expect![[r#"
            repl> let h = netns(
            "h"); veth(h["eth0"]
            , h["eth1"]);
            repl>
        "#]]);
        screen.enter(":ls");
        screen.looks(expect![[r#"
            repl> :ls
            repl: 1 netns, 2 dev
            ices
            └─ h
               ├─ eth0  veth up
             -- h/eth1
               └─ eth1  veth up
             -- h/eth0
            repl>
        "#]]);
        screen.enter(r#"h["eth0"].addr("no address at all")"#);
        screen.looks(expect![[r#"
            repl> h["eth0"].addr
            ("no address at all"
            )
            error: add an addres
            s to `eth0` of `h`:
            expected an address
            with its prefix leng
            th, such as "10.0.0.
            1/24" or "fd00::1/64
            ", got "no address a
            t all" (it is not an
             IP address)
             --> [2]:1:11
              |
            1 | h["eth0"].addr("
            no address at all")
              |           ^^^^
            repl>
        "#]]);
        expect![[r#"
            net(
            netns(
            netns_get(
            netns_of(
            netns_of_pid(
            netns_open(
        "#]]
        .assert_eq(&screen.listed("net"));
        screen.leave();
    });
}

/// A terminal that becomes narrow while a line is typed still shows the line, and the line is whole.
#[test]
fn a_terminal_may_be_resized_while_a_line_is_typed() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.clear();
        screen.keys(r#"let word = "0123456789012345678901234567890123456789"#);
        screen.shows("0123456789\n");
        screen.resize(30, 20);
        screen.keys("abc");
        screen.shows("repl> let word = \"01\n23456789012345678901\n234567890123456789ab\nc\n");
        screen.keys("\";");
        screen.keys(ENTER);
        screen.prompt();
        screen.resize(40, 100);
        screen.enter("word");
        screen.looks(expect![[r#"
            repl> word
            "0123456789012345678901234567890123456789abc"
            repl>
        "#]]);
        screen.leave_unasked();
    });
}

/// A script of many lines that is pasted is one statement, whatever is in it.
#[test]
fn a_pasted_script_is_read() {
    as_root(|w, _| {
        let mut screen = Screen::open(w, &[]);
        screen.enter("let sum = 0;");
        let script: String = (0..10_000).map(|i| format!("sum += {i};\n")).collect();
        screen.keys(&format!("\x1b[200~{script}\x1b[201~"));
        screen.shows("sum += 9999;");
        screen.keys(ENTER);
        screen.until("the script is not run", |screen| screen.is_at_prompt());
        screen.enter("sum");
        screen.looks(expect![[r#"
            repl> sum
            49995000
            repl>
        "#]]);
        screen.leave_unasked();
    });
}
