//! What a user and a program see.

use expect_test::{Expect, expect};

use super::{as_root, as_user, timeless};
use crate::world::World;

const SOME: &str = r#"/// A ping of itself. And more.
fn test_good() {
    print("not shown");
    check("h reaches itself", netns("h").ping("127.0.0.1"));
}

/// A cable without addresses.
fn test_bad() {
    let h = netns("h");
    veth(h["eth0"], bridge("br0"));
    let p = h.start("echo I am here; exec sleep 1000", #{ ready: "here", name: "idle" });
    print("a # <b> & \x1b[1m");
    check("h reaches nobody", h.ping("192.0.2.1"));
    assert_eq("one\ntwo\nend", "one\n2\nend", "the same");
}

fn test_skipped() { skip("needs iperf3"); }
fn test_expected() { expect_failure("not yet #1"); assert(false); }
"#;

fn shows(w: &World, args: &[&str], code: i32, wanted: Expect) {
    let ran = w.topo(&[&["test", "-j1"], args].concat()).fails(code);
    let stderr = if ran.err().is_empty() { String::new() } else { format!("--- stderr\n{}", ran.err()) };
    wanted.assert_eq(&timeless(&format!("{}{stderr}", ran.out())));
}

#[test]
fn as_text() {
    as_user(|w| {
        w.write("tests/some.rhai", SOME);
        shows(
            w,
            &[],
            1,
            expect![[r#"
                ok    tests/some.rhai::test_good  (T s)
                FAIL  tests/some.rhai::test_bad  (T s)
                skip  tests/some.rhai::test_skipped: needs iperf3  (T s)
                xfail tests/some.rhai::test_expected: not yet #1  (T s)

                ---- tests/some.rhai::test_bad ----
                error: check "h reaches nobody": Network is unreachable
                  --> tests/some.rhai:13:5
                   |
                13 |     check("h reaches nobody", h.ping("192.0.2.1"));
                   |     ^^^^^
                error: assert_eq "the same": the texts differ (- left, + right)
                         one
                       - two
                       + 2
                         end
                  --> tests/some.rhai:14:5
                   |
                14 |     assert_eq("one\ntwo\nend", "one\n2\nend", "the same");
                   |     ^^^^^^^^^
                the lab at the failure:
                  host  (not made by this lab)
                    br0     bridge up
                    h-eth0  veth up    port of br0  -- h/eth0
                  h
                    eth0  veth up  -- h-eth0 (br0)
                log:
                  h/idle (running):
                  I am here
                output:
                  a # <b> & \u{1b}[1m
                run it alone: topo test tests/some.rhai::test_bad

                1 passed, 1 failed, 1 failed as expected, 1 skipped in T s
            "#]],
        );
        shows(
            w,
            &["tests/some.rhai::test_good", "--show-output"],
            0,
            expect![[r#"
            ok    tests/some.rhai::test_good  (T s)
                  not shown
            1 passed in T s
        "#]],
        );
        shows(
            w,
            &["--fail-fast"],
            1,
            expect![[r#"
                ok    tests/some.rhai::test_good  (T s)
                FAIL  tests/some.rhai::test_bad  (T s)

                ---- tests/some.rhai::test_bad ----
                error: check "h reaches nobody": Network is unreachable
                  --> tests/some.rhai:13:5
                   |
                13 |     check("h reaches nobody", h.ping("192.0.2.1"));
                   |     ^^^^^
                error: assert_eq "the same": the texts differ (- left, + right)
                         one
                       - two
                       + 2
                         end
                  --> tests/some.rhai:14:5
                   |
                14 |     assert_eq("one\ntwo\nend", "one\n2\nend", "the same");
                   |     ^^^^^^^^^
                the lab at the failure:
                  host  (not made by this lab)
                    br0     bridge up
                    h-eth0  veth up    port of br0  -- h/eth0
                  h
                    eth0  veth up  -- h-eth0 (br0)
                log:
                  h/idle (running):
                  I am here
                output:
                  a # <b> & \u{1b}[1m
                run it alone: topo test tests/some.rhai::test_bad

                1 passed, 1 failed, 2 not run in T s
            "#]],
        );
    });
}

#[test]
fn as_tap() {
    as_user(|w| {
        w.write("tests/some.rhai", SOME);
        shows(
            w,
            &["--tap"],
            1,
            expect![[r#"
                TAP version 14
                1..4
                ok 1 - tests/some.rhai::test_good
                  ---
                  duration_ms: N
                  ...
                not ok 2 - tests/some.rhai::test_bad
                  ---
                  duration_ms: N
                  message: |2-
                    check "h reaches nobody": Network is unreachable
                    assert_eq "the same": the texts differ (- left, + right)
                      one
                    - two
                    + 2
                      end
                  at:
                    file: "tests/some.rhai"
                    line: 13
                    column: 5
                  errors: |2-
                    error: check "h reaches nobody": Network is unreachable
                      --> tests/some.rhai:13:5
                       |
                    13 |     check("h reaches nobody", h.ping("192.0.2.1"));
                       |     ^^^^^
                    error: assert_eq "the same": the texts differ (- left, + right)
                             one
                           - two
                           + 2
                             end
                      --> tests/some.rhai:14:5
                       |
                    14 |     assert_eq("one\ntwo\nend", "one\n2\nend", "the same");
                       |     ^^^^^^^^^
                  the_lab_at_the_failure: |2-
                    host  (not made by this lab)
                      br0     bridge up
                      h-eth0  veth up    port of br0  -- h/eth0
                    h
                      eth0  veth up  -- h-eth0 (br0)
                  log: |2-
                    h/idle (running):
                    I am here
                  output: "a # <b> & \u001b[1m\n"
                  rerun: "topo test tests/some.rhai::test_bad"
                  ...
                ok 3 - tests/some.rhai::test_skipped # SKIP needs iperf3
                  ---
                  duration_ms: N
                  ...
                not ok 4 - tests/some.rhai::test_expected # TODO not yet \#1
                  ---
                  duration_ms: N
                  message: "assert \"it holds\": it is false"
                  at:
                    file: "tests/some.rhai"
                    line: 18
                    column: 52
                  errors: |2-
                    error: assert "it holds": it is false
                      --> tests/some.rhai:18:52
                       |
                    18 | fn test_expected() { expect_failure("not yet #1"); assert(false); }
                       |                                                    ^^^^^^
                  rerun: "topo test tests/some.rhai::test_expected"
                  ...
            "#]],
        );
        shows(
            w,
            &["--tap", "--fail-fast", "--filter", "bad|skipped"],
            1,
            expect![[r#"
                TAP version 14
                1..2
                not ok 1 - tests/some.rhai::test_bad
                  ---
                  duration_ms: N
                  message: |2-
                    check "h reaches nobody": Network is unreachable
                    assert_eq "the same": the texts differ (- left, + right)
                      one
                    - two
                    + 2
                      end
                  at:
                    file: "tests/some.rhai"
                    line: 13
                    column: 5
                  errors: |2-
                    error: check "h reaches nobody": Network is unreachable
                      --> tests/some.rhai:13:5
                       |
                    13 |     check("h reaches nobody", h.ping("192.0.2.1"));
                       |     ^^^^^
                    error: assert_eq "the same": the texts differ (- left, + right)
                             one
                           - two
                           + 2
                             end
                      --> tests/some.rhai:14:5
                       |
                    14 |     assert_eq("one\ntwo\nend", "one\n2\nend", "the same");
                       |     ^^^^^^^^^
                  the_lab_at_the_failure: |2-
                    host  (not made by this lab)
                      br0     bridge up
                      h-eth0  veth up    port of br0  -- h/eth0
                    h
                      eth0  veth up  -- h-eth0 (br0)
                  log: |2-
                    h/idle (running):
                    I am here
                  output: "a # <b> & \u001b[1m\n"
                  rerun: "topo test tests/some.rhai::test_bad"
                  ...
                ok 2 - tests/some.rhai::test_skipped # SKIP not run
                  ---
                  duration_ms: N
                  ...
            "#]],
        );
    });
}

#[test]
fn as_junit() {
    as_user(|w| {
        w.write("tests/some.rhai", SOME);
        w.topo(&["test", "-j1", "--junit", "out.xml"])
            .fails(1)
            .says("1 passed, 1 failed, 1 failed as expected, 1 skipped")
            .says("1 skipped");
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="topo test" tests="4" failures="1" errors="0" skipped="1" time="T">
              <testsuite name="tests/some.rhai" tests="4" failures="1" errors="0" skipped="1" time="T">
                <testcase classname="tests/some.rhai" name="test_good" file="tests/some.rhai" line="2" time="T"/>
                <testcase classname="tests/some.rhai" name="test_bad" file="tests/some.rhai" line="8" time="T">
                  <failure message="check &quot;h reaches nobody&quot;: Network is unreachable" type="failed">error: check &quot;h reaches nobody&quot;: Network is unreachable&#10;  --&gt; tests/some.rhai:13:5&#10;   |&#10;13 |     check(&quot;h reaches nobody&quot;, h.ping(&quot;192.0.2.1&quot;));&#10;   |     ^^^^^&#10;error: assert_eq &quot;the same&quot;: the texts differ (- left, + right)&#10;         one&#10;       - two&#10;       + 2&#10;         end&#10;  --&gt; tests/some.rhai:14:5&#10;   |&#10;14 |     assert_eq(&quot;one\ntwo\nend&quot;, &quot;one\n2\nend&quot;, &quot;the same&quot;);&#10;   |     ^^^^^^^^^&#10;the lab at the failure:&#10;host  (not made by this lab)&#10;  br0     bridge up&#10;  h-eth0  veth up    port of br0  -- h/eth0&#10;h&#10;  eth0  veth up  -- h-eth0 (br0)&#10;log:&#10;h/idle (running):&#10;I am here&#10;run it alone: topo test tests/some.rhai::test_bad&#10;</failure>
                  <system-out>a # &lt;b&gt; &amp; �[1m&#10;</system-out>
                </testcase>
                <testcase classname="tests/some.rhai" name="test_skipped" file="tests/some.rhai" line="17" time="T">
                  <skipped message="needs iperf3"/>
                </testcase>
                <testcase classname="tests/some.rhai" name="test_expected" file="tests/some.rhai" line="18" time="T">
                  <system-err>failed as expected: not yet #1</system-err>
                </testcase>
              </testsuite>
            </testsuites>
        "#]].assert_eq(&timeless(w.run("cat out.xml").ok().out()));
        w.topo(&["test", "--junit", "no/such/out.xml"]).fails(1).says("write `no/such/out.xml`");
    });
}

#[test]
fn as_json() {
    as_user(|w| {
        w.write("tests/some.rhai", SOME);
        shows(
            w,
            &["--json", "--filter", "bad|skipped"],
            1,
            expect![[r#"
                {
                  "expected_failures": 0,
                  "failed": 1,
                  "interrupted": false,
                  "not_run": 0,
                  "ok": false,
                  "passed": 0,
                  "seconds": 0,
                  "skipped": 1,
                  "tests": [
                    {
                      "about": "A cable without addresses.",
                      "checks": 1,
                      "errors": [
                        {
                          "at": [
                            {
                              "column": 5,
                              "line": 13,
                              "source": "tests/some.rhai"
                            }
                          ],
                          "hint": null,
                          "kind": "failed",
                          "message": "check \"h reaches nobody\": Network is unreachable",
                          "phase": "test",
                          "text": "error: check \"h reaches nobody\": Network is unreachable\n  --> tests/some.rhai:13:5\n   |\n13 |     check(\"h reaches nobody\", h.ping(\"192.0.2.1\"));\n   |     ^^^^^\n"
                        },
                        {
                          "at": [
                            {
                              "column": 5,
                              "line": 14,
                              "source": "tests/some.rhai"
                            }
                          ],
                          "hint": null,
                          "kind": "failed",
                          "message": "assert_eq \"the same\": the texts differ (- left, + right)\n  one\n- two\n+ 2\n  end",
                          "phase": "test",
                          "text": "error: assert_eq \"the same\": the texts differ (- left, + right)\n         one\n       - two\n       + 2\n         end\n  --> tests/some.rhai:14:5\n   |\n14 |     assert_eq(\"one\\ntwo\\nend\", \"one\\n2\\nend\", \"the same\");\n   |     ^^^^^^^^^\n"
                        }
                      ],
                      "failed_checks": 1,
                      "file": "tests/some.rhai",
                      "lab": "host  (not made by this lab)\n  br0     bridge up\n  h-eth0  veth up    port of br0  -- h/eth0\nh\n  eth0  veth up  -- h-eth0 (br0)\n",
                      "line": 8,
                      "logs": {
                        "h/idle (running)": "I am here\n"
                      },
                      "output": "a # <b> & \u001b[1m\n",
                      "rerun": "topo test tests/some.rhai::test_bad",
                      "seconds": 0,
                      "status": "failed",
                      "test": "test_bad"
                    },
                    {
                      "about": "",
                      "checks": 0,
                      "failed_checks": 0,
                      "file": "tests/some.rhai",
                      "line": 17,
                      "reason": "needs iperf3",
                      "seconds": 0,
                      "status": "skipped",
                      "test": "test_skipped"
                    }
                  ]
                }
            "#]],
        );
    });
}

#[test]
fn lists_and_choices() {
    as_root(|w| {
        w.write("tests/some.rhai", SOME);
        w.write("tests/more/other.rhai", "fn helper() {}\n/// Two\n/// lines.\nfn test_other() {}\n");
        w.write("tests/none.rhai", "fn helper() {}\n");
        shows(
            w,
            &["--list"],
            0,
            expect![[r#"
            TEST                               WHAT IT TESTS
            tests/more/other.rhai::test_other  Two lines.
            tests/some.rhai::test_good         A ping of itself.
            tests/some.rhai::test_bad          A cable without addresses.
            tests/some.rhai::test_skipped
            tests/some.rhai::test_expected
        "#]],
        );
        shows(
            w,
            &["--list", "--json", "tests/more"],
            0,
            expect![[r#"
            [
              {
                "about": "Two lines.",
                "file": "tests/more/other.rhai",
                "line": 4,
                "test": "test_other"
              }
            ]
        "#]],
        );
        shows(
            w,
            &["tests/some.rhai", "--filter", "some.*good$"],
            0,
            expect![[r#"
            ok    tests/some.rhai::test_good  (T s)
            1 passed in T s
        "#]],
        );
    });
}

/// Wrong usage, exit code 2: nothing is run.
#[test]
fn refused() {
    as_root(|w| {
        w.write("tests/some.rhai", SOME);
        w.write("none.rhai", "fn helper() {}\n");
        w.run("mkdir empty").ok();
        shows(
            w,
            &["none.rhai"],
            2,
            expect![[r#"
            --- stderr
            error: find the tests of `none.rhai`: it has no function whose name begins with `test_`
            hint: a test is a function without parameters: `fn test_ping() { … }`
        "#]],
        );
        shows(
            w,
            &["empty"],
            2,
            expect![[r#"
            --- stderr
            error: find the tests of `empty`: no `.rhai` file in it has a function whose name begins with `test_`
        "#]],
        );
        shows(
            w,
            &["gone"],
            2,
            expect![[r#"
                --- stderr
                error: find the tests of `gone`: there is no such file or directory here
                hint: `topo test FILE` runs the functions of a script whose names begin with `test_`; without one, those below `tests`
            "#]],
        );
        shows(
            w,
            &["tests/some.rhai::test_goo"],
            2,
            expect![[r#"
            --- stderr
            error: find the tests of `tests/some.rhai::test_goo`: the file has no test of this name
            hint: did you mean `test_good`?
        "#]],
        );
        shows(
            w,
            &["--filter", "("],
            2,
            expect![[r#"
            --- stderr
            error: `--filter` is no regular expression: found open group without closing ')'
        "#]],
        );
        shows(
            w,
            &["--filter", "nothing"],
            2,
            expect![[r#"
            --- stderr
            error: choose tests: `--filter` matches none of them
            hint: `--list` lists them
        "#]],
        );
        shows(
            w,
            &["--timeout", "5"],
            2,
            expect![[r#"
            --- stderr
            error: invalid value '5' for '--timeout <TIME>': expected a time with its unit, such as `500ms`, `30s` or `2m`

            For more information, try '--help'.
        "#]],
        );
        shows(
            w,
            &["--tap", "--json"],
            2,
            expect![[r#"
            --- stderr
            error: the argument '--tap' cannot be used with '--json'

            Usage: topo test --jobs <N> --tap [PATH]...

            For more information, try '--help'.
        "#]],
        );
    });
}
