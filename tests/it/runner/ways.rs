//! The ways in which a test can fail, and be skipped. In each, the test beside it passes.

use serde_json::Value;

use super::{as_root, as_user, first_error, of, report};
use crate::world::World;

/// Runs a test with this body, and one that passes; returns what is said of the first.
fn alone(w: &World, body: &str, options: &[&str]) -> Value {
    let text =
        format!("fn test_it() {{\n{body}\n}}\nfn test_beside() {{ assert(netns(\"h\").ping(\"127.0.0.1\")); }}\n");
    let report = report(w, &text, options);
    assert_eq!(of(&report, "test_beside")["status"], "passed", "{report:#}");
    of(&report, "test_it").clone()
}

/// Runs a test with this body, which must fail so.
fn fails(w: &World, body: &str, options: &[&str], kind: &str, message: &str) -> Value {
    let row = alone(w, body, options);
    assert_eq!(row["status"], "failed", "{row:#}");
    let (found, said) = first_error(&row);
    assert!(found == kind && said.contains(message), "{kind}: {message}: {row:#}");
    row
}

fn whatever_it_does(w: &World) {
    let row =
        fails(w, "netns(\"a\");\nassert(false, \"it is so\");", &[], "failed", "assert \"it is so\": it is false");
    assert_eq!(row["errors"][0]["at"][0]["line"], 3);
    assert!(row["lab"].as_str().expect("a lab").contains("a\n"), "{row:#}");
    assert_eq!(row["rerun"], "topo test t.rhai::test_it");

    let row =
        fails(w, "check(\"one\", true); check(\"two\", false); check(\"three\", false);", &[], "failed", "\"two\"");
    assert_eq!((&row["checks"], &row["failed_checks"]), (&3.into(), &2.into()), "{row:#}");
    fails(w, "nothing_like_it();", &[], "unknown", "unknown function `nothing_like_it`");
    fails(w, "throw \"no more\";", &[], "thrown", "no more");
    fails(w, "veth(\"a0\", \"b0\"); veth(\"a0\", \"c0\");", &[], "exists", "a0");
    w.write("t.rhai", "fn test_a() {\n    let x = ;\n}\n");
    w.write("good.rhai", "fn test_b() {}\n");
    let ran = w.topo(&["test", "t.rhai", "good.rhai"]).fails(1);
    ran.says("FAIL  t.rhai").says("ok    good.rhai::test_b").says("t.rhai:2:13").says("1 passed, 1 failed");
}

#[test]
fn a_failed_test_whoever_runs_it() {
    as_root(whatever_it_does);
    as_user(whatever_it_does);
}

/// What hangs is told to stop and shows where it was; what doesn't stop is ended.
#[test]
fn one_that_hangs() {
    as_root(|w| {
        let row = fails(w, "time_limit(\"500ms\"); host.exec(\"sleep 1000\");", &[], "time", "longer than 0.50 s");
        assert_eq!(row["errors"][0]["at"][0]["line"], 2, "{row:#}");
        fails(w, "time_limit(\"300ms\"); loop { let x = 1; }", &[], "time", "longer than 0.30 s");
        fails(w, "time_limit(\"300ms\"); check_within(\"never\", \"60s\", || false);", &[], "time", "longer than");
        let body = "time_limit(\"300ms\"); try { sleep(60); } catch { } loop { }";
        fails(w, body, &[], "time", "longer than");
        // A limit of its own may be longer than that of all.
        let row = alone(w, "time_limit(\"1m\"); sleep(\"1s\");", &["--timeout", "30s"]);
        assert_eq!(row["status"], "passed", "{row:#}");
    });
}

/// What ends its own process is told of; pid 1 of the sandbox can't be ended from inside.
#[test]
fn one_that_kills() {
    as_root(|w| {
        fails(w, "host.exec(\"kill -9 $PPID\");", &[], "died", "ended by SIGKILL, during its test");
        fails(w, "host.exec(\"kill -ABRT $PPID\");", &[], "died", "ended by SIGABRT");
        assert_eq!(alone(w, "host.exec(\"kill -9 1; kill -TERM 1\");", &[])["status"], "passed");
        // Of the sandboxes beside it, it sees nothing.
        assert_eq!(alone(w, "assert_eq(host.exec(\"pgrep -c topo; true\").code, 0);", &[])["status"], "passed");
    });
}

/// A flood of output is cut in the middle; too much memory is an error of the script.
#[test]
fn one_that_wants_too_much() {
    as_root(|w| {
        let row = fails(w, "for i in 0..20000 { print(`line ${i}`); } assert(false);", &[], "failed", "it is false");
        let output = row["output"].as_str().expect("output");
        assert!(output.starts_with("line 0\nline 1\n") && output.ends_with("line 19999\n"), "{output}");
        assert!(output.len() < 100_000 && output.contains(" bytes left out …"));
        fails(w, "let s = \"x\"; loop { s += s; }", &[], "exhausted", "in memory");
        fails(w, "fn_deep();\n}\nfn fn_deep() { fn_deep();", &[], "script", "nested too deep");
    });
}

/// All that a test leaves beside its lab is named.
#[test]
fn one_that_leaves_something() {
    as_root(|w| {
        let body = r#"host.exec("ip link add left0 type bridge; ip netns add foo; sysctl -qw net.ipv4.ip_forward=1");
            host.exec("ip route add blackhole 10.9.0.0/16; ip rule add priority 77 table 7; ip addr add 10.8.0.1/32 dev lo");
            host.exec("nft add table ip foo; env -u TOPO_MARK setsid sleep 999 >/dev/null 2>&1 & "
                + "until grep -qx sleep /proc/$!/comm; do :; done");"#;
        let row = fails(w, body, &[], "leak", "the host isn't as before the test");
        let (_, said) = first_error(&row);
        for left in [
            "link `left0` was left",
            "netns `foo` was left",
            "mount `/run/netns/foo` was left",
            "sysctl `net.ipv4.ip_forward` was changed: `0` before, `1` now",
            "10.9.0.0/16",
            "address `10.8.0.1/32 dev lo` was left",
            "process `sleep 999` was left",
        ] {
            assert!(said.contains(left), "{left}: {said}");
        }
        assert!(said.contains("priority: Some(77)"), "{said}");
    });
}

/// What passes, fails and is skipped otherwise than a test that says nothing of it.
#[test]
fn what_is_expected() {
    as_root(|w| {
        let row = alone(w, "expect_failure(\"not yet\"); assert(false);", &[]);
        assert!(row["status"] == "expected_failure" && row["reason"] == "not yet", "{row:#}");
        fails(
            w,
            "expect_failure(\"not yet\");",
            &[],
            "passed",
            "passed unexpectedly; it was expected to fail: not yet",
        );
        let leak = "expect_failure(\"not yet\"); host.exec(\"ip netns add foo\"); assert(false);";
        fails(w, leak, &[], "leak", "netns `foo` was left");
        let row = alone(w, "skip(\"needs iperf3\");", &[]);
        assert!(row["status"] == "skipped" && row["reason"] == "needs iperf3", "{row:#}");
        let row = alone(w, "fail(\"unsupported\", \"add a foo\", \"the kernel lacks CONFIG_FOO\", \"\");", &[]);
        assert_eq!(row["reason"], "add a foo: the kernel lacks CONFIG_FOO", "{row:#}");
        let body = "skip(\"needs iperf3\");";
        fails(w, body, &["--no-skip"], "skipped", "it was skipped, which `--no-skip` forbids: needs iperf3");
        // A check that failed before is no skip.
        fails(w, "check(\"it\", false); skip(\"needs iperf3\");", &[], "failed", "check \"it\"");
    });
}

/// `setup` runs before each test, `teardown` after it whatever came of it, and may itself fail.
#[test]
fn fixtures() {
    as_root(|w| {
        let text = |setup: &str, test: &str, teardown: &str| {
            format!("fn setup() {{ {setup} }}\nfn teardown() {{ {teardown} }}\nfn test_it() {{ {test} }}\n")
        };
        let run = |setup: &str, test: &str, teardown: &str| {
            of(&report(w, &text(setup, test, teardown), &[]), "test_it").clone()
        };
        let row = run("netns(\"h\"); print(1);", "netns_get(\"h\"); print(2);", "netns_get(\"h\").remove(); print(3);");
        assert!(row["status"] == "passed" && row["output"] == "1\n2\n3\n", "{row:#}");
        let row = run("print(1); assert(false);", "print(2);", "print(3);");
        assert!(first_error(&row).1.contains("it is false") && row["output"] == "1\n3\n", "{row:#}");
        let row = run("", "assert(false);", "throw \"worn out\";");
        let messages: Vec<&str> =
            row["errors"].as_array().expect("errors").iter().filter_map(|error| error["message"].as_str()).collect();
        assert_eq!(messages, ["assert \"it holds\": it is false", "teardown: the script threw: worn out"]);
        let row = run("", "expect_failure(\"x\"); assert(false);", "throw \"worn out\";");
        assert_eq!(row["status"], "failed", "{row:#}");
        // What hangs is torn down as well.
        let row = run("", "time_limit(\"300ms\"); loop { let x = 1; }", "print(3);");
        assert!(first_error(&row).0 == "time" && row["output"] == "3\n", "{row:#}");
    });
}

/// The statements of the file run first: imports and constants are there for each test.
#[test]
fn a_file_has_statements_of_its_own() {
    as_user(|w| {
        w.write("help.rhai", "fn two() { 2 }\n");
        let text = "import \"./help\" as help;\nconst N = 2;\nlet lab = netns(\"all\");\n\
                    fn test_it() { assert_eq(help::two(), global::N); netns_get(\"all\"); }\n// no end of line";
        assert_eq!(of(&report(w, text, &[]), "test_it")["status"], "passed");
        let row = report(w, "import \"./gone\" as gone;\nfn test_it() { }\n", &[]);
        assert!(first_error(of(&row, "test_it")).1.contains("gone.rhai"), "{row:#}");
    });
}

/// A marked line must fail as its mark says, and where it stands.
#[test]
fn marks() {
    as_user(|w| {
        let run = |body: &str| of(&report(w, &format!("fn test_it() {{\n{body}\n}}\n"), &[]), "test_it").clone();
        let good = "netns(\"a/b\");  //~ invalid: not allowed\nveth(\"a\", \"a\");  //~ invalid: both";
        assert_eq!(run(good)["status"], "passed");
        for (line, said) in [
            ("netns(\"ab\");  //~ invalid: not allowed", "the line doesn't fail"),
            ("netns(\"a/b\");  //~ missing: not allowed", "the line fails with an error of kind `invalid`"),
            ("netns(\"a/b\");  //~ invalid: something else", "the line fails with another error"),
            ("let x = 1;  //~ invalid: not allowed\nnetns(\"a/b\");", "another line fails: t.rhai:3:1"),
        ] {
            let row = run(line);
            let (kind, message) = first_error(&row);
            assert!(
                kind == "mark" && message.contains(said) && row["errors"][0]["at"][0]["line"] == 2,
                "{said}: {row:#}"
            );
        }
    });
}
