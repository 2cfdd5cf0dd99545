//! What a reader of another language types, and slips of the finger: each is an error that says what to type instead.

use expect_test::expect;

use super::{Terminal, as_root, as_user};

/// What is found when the script runs into it.
#[test]
fn a_slip_ends_the_run_at_its_place() {
    as_root(|w| {
        w.session(expect![[r#"
            $ topo run -e 'let h = netns("h"); print(h.nmae);'
            --- stderr
            error: unknown property `nmae` of a netns
             --> -e:1:28
              |
            1 | let h = netns("h"); print(h.nmae);
              |                            ^
              |
              = hint: did you mean `name`? a device is named in brackets: `["nmae"]`
            --- exit code 1
            $ topo run -e 'fn mac(h) { h?.mac } let h = netns("h"); print(h["lo"].name); mac(h);'
            lo
            --- stderr
            error: unknown property `mac` of a netns
             --> -e:1:14
              |
            1 | fn mac(h) { h?.mac } let h = netns("h"); print(h["lo"].name); mac(h);
              |              ^
              |
             ::: -e:1:63
              |
            1 | fn mac(h) { h?.mac } let h = netns("h"); print(h["lo"].name); mac(h);
              |                                                               --- called from here
              |
              = hint: a device is named in brackets: `["mac"]`
            --- exit code 1
            $ topo run -e 'let p = #{ ok: true, sent: 1 }; if p.okk { print(1); }'
            --- stderr
            error: unknown property `okk`
             --> -e:1:38
              |
            1 | let p = #{ ok: true, sent: 1 }; if p.okk { print(1); }
              |                                      ^^^
              |
              = hint: did you mean `ok`? it has `ok`, `sent`
            --- exit code 1
            $ topo run -e 'const T = #{ name: "a", mtu: 1400 }; netns("h"); print(T.nmae);'
            --- stderr
            error: unknown property `nmae` of `T`
             --> -e:1:58
              |
            1 | const T = #{ name: "a", mtu: 1400 }; netns("h"); print(T.nmae);
              |                                                          ^^^^
              |
              = hint: did you mean `name`? it has `mtu`, `name`
            --- exit code 1
            $ topo run -e 'let h = netns("h"); if h.ping("127.0.0.1") { print(1); }'
            --- stderr
            error: a condition is true or false, and this is of type `map`
             --> -e:1:25
              |
            1 | let h = netns("h"); if h.ping("127.0.0.1") { print(1); }
              |                         ^
              |
              = hint: a key of it may be: `h.ping(…).ok`, `h.exec(…).code == 0`
            everything that lab `lab` had made was taken back
            --- exit code 1
            $ topo run -e 'let l = [1]; while l { l.pop(); }'
            --- stderr
            error: a condition is true or false, and this is of type `array`
             --> -e:1:20
              |
            1 | let l = [1]; while l { l.pop(); }
              |                    ^
              |
              = hint: compare it: `list.len() > 0`
            --- exit code 1
            $ topo run -e 'let m = #{ n: () }; m.n += 1;'
            --- stderr
            error: `+` does not work on () and int
             --> -e:1:25
              |
            1 | let m = #{ n: () }; m.n += 1;
              |                         ^
              |
              = hint: `()` is what a variable holds that was given nothing
            --- exit code 1
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

/// The keys of a variable of the script are not those of one in a module, though it stands at the same place of its text.
#[test]
fn keys_are_those_of_the_map_that_was_read() {
    as_root(|w| {
        w.write("m.rhai", "fn f(t) {     t.okk }");
        w.write("main.rhai", "let t=#{k:1}; t.k; import \"./m\" as m; m::f(#{ ok: 1 });");
        let ran = w.topo(&["run", "main.rhai"]).fails(1);
        ran.says("unknown property `okk`");
        assert!(!ran.err().contains("it has"), "{}", ran.err());
    });
}

/// The advice for an unknown property is never that property itself.
#[test]
fn a_property_of_another_type_is_not_its_own_advice() {
    as_root(|w| {
        let ran = w.topo(&["run", "-e", r#"let l = [netns("a")]; l.for_each(|h| print(h.name));"#]).fails(1);
        ran.says("unknown property `name` of type `int`").says("has the element as `this`");
        let ran = w.topo(&["run", "-e", r#"let t = "a"; t.name"#]).fails(1);
        ran.says("unknown property `name` of type `string`");
        assert!(!ran.err().contains("did you mean"), "{}", ran.err());
        w.topo(&["run", "--rm", "-e", r#"let l = [netns("a")]; l.for_each(|| print(this.name));"#]).ok();
    });
}

/// What is said before anything runs.
#[test]
fn another_languages_words_are_explained() {
    as_user(|w| {
        w.write("quotes.rhai", "let h = netns('host one');");
        w.session(expect![[r#"
            $ topo run -e 'let x = 5; print x;'
            --- stderr
            error: `print` is a function, and is called with brackets
             --> -e:1:12
              |
            1 | let x = 5; print x;
              |            ^^^^^
              |
              = hint: write `print(x)`
            --- exit code 1
            $ topo run quotes.rhai
            --- stderr
            error: invalid character: 'host one'
             --> quotes.rhai:1:15
              |
            1 | let h = netns('host one');
              |               ^
              |
              = hint: a text stands between double quotes, "host one"; single ones are for one character
            --- exit code 1
            $ topo run -e 'x = 5'
            --- stderr
            error: unknown variable `x`
             --> -e:1:1
              |
            1 | x = 5
              | ^
              |
              = hint: `let` declares a variable: `let x = 5`
            --- exit code 1
            $ topo run -e 'lan::star("sw0", 3, net("10.0.0.0/24"))'
            --- stderr
            error: unknown module `lan`
             --> -e:1:1
              |
            1 | lan::star("sw0", 3, net("10.0.0.0/24"))
              | ^^^
              |
              = hint: import it first: `import "lan" as lan;`
            --- exit code 1
            $ topo run -e 'dhpc::server(1)'
            --- stderr
            error: unknown module `dhpc`
             --> -e:1:1
              |
            1 | dhpc::server(1)
              | ^^^^
              |
              = hint: did you mean `dhcp`? import it first: `import "dhcp" as dhcp;`
            --- exit code 1
            $ topo run -e 'let x = 5; fn f() { x } f()'
            --- stderr
            error: unknown variable `x`
             --> -e:1:21
              |
            1 | let x = 5; fn f() { x } f()
              |                     ^
              |
              = hint: a function sees its parameters, not the variables around it: pass `x` to it
            --- exit code 1
            $ topo run -e 'const X = 5; fn f() { X } f()'
            --- stderr
            error: unknown variable `X`
             --> -e:1:23
              |
            1 | const X = 5; fn f() { X } f()
              |                       ^
              |
              = hint: a function sees the file's constants as `global::X`
            --- exit code 1
            $ topo run --rm -e 'const X = 5; fn f() { global::X } print(f());'
            5
        "#]]);
    });
}

/// What `topo check` knows of it beforehand.
#[test]
fn check_finds_slips() {
    as_user(|w| {
        w.write(
            "slips.rhai",
            r#"const T = #{ name: "a" };
let h = netns("h");
let n = 3;
print(T.nmae + h.nmae);
print("h${n}");
h.exec("for n in 1 2; do echo ${n}; done; echo ${HOME}");
veth(h["eth0"], "up0", #{ mtu: "1400" });
h["eth0"].shape(#{ rate: 10, delay: "10ms" });
host.eth0;
"#,
        );
        w.session(expect![[r#"
            $ topo check slips.rhai
            --- stderr
            error: unknown property `nmae` of `T`
             --> slips.rhai:4:9
              |
            4 | print(T.nmae + h.nmae);
              |         ^^^^
              |
              = hint: did you mean `name`? it has `name`
            error: unknown property `nmae` of a netns
             --> slips.rhai:4:18
              |
            4 | print(T.nmae + h.nmae);
              |                  ^^^^
              |
              = hint: did you mean `name`? a device is named in brackets: `["nmae"]`
            error: `${n}` in plain quotes stays as it is
             --> slips.rhai:5:9
              |
            5 | print("h${n}");
              |         ^
              |
              = hint: between backticks the variable's value is put there: `…${n}…`
            error: option `mtu` of `veth`: expected a number of bytes from 68 to 65535, got "1400"
             --> slips.rhai:7:27
              |
            7 | veth(h["eth0"], "up0", #{ mtu: "1400" });
              |                           ^^^
            error: option `rate` of `shape`: expected a rate with its unit, such as "10mbit", "1.5gbit" or "800kbit", got 10
             --> slips.rhai:8:20
              |
            8 | h["eth0"].shape(#{ rate: 10, delay: "10ms" });
              |                    ^^^^
            error: unknown property `eth0` of a netns
             --> slips.rhai:9:6
              |
            9 | host.eth0;
              |      ^^^^
              |
              = hint: a device is named in brackets: `["eth0"]`
            6 mistakes found
            --- exit code 1
        "#]]);
    });
}
