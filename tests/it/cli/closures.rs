//! Closures: what they may read, and who called them when a step is refused late.

use expect_test::expect;

use super::{Terminal, as_root};

/// A closure reads the variable on a part of which its method is called, at the top, in a function, in a module and in one that another
/// closure is given to; what rhai can't do is refused before anything is made, and `check` finds it.
#[test]
fn closures_read_what_they_are_called_on() {
    as_root(|w| {
        w.write("lib/find.rhai", "fn wanted(t) { t.hops.filter(|h| h == t.want || t.hops.some(|g| g == t.also)) }");
        w.write(
            "reads.rhai",
            r#"import "./lib/find" as find;
import "topology" as topology;
fn all(t) { t.names.map(|n| t.nodes[n]) }
let t = topology::line(2);
print(all(t).map(|r| r.name));
let u = #{ hops: ["a", "b"], want: "b", also: "c" };
print(u.hops.some(|h| h == u.want));
print(find::wanted(u));
check_within("all answer", "5s", || t.names.all(|n| t.nodes[n].ping(t.ip[n]).ok));
"#,
        );
        w.session(expect![[r#"
            $ topo run --rm reads.rhai
            --- stderr
            error: `all` works on a part of `t`, which its closure reads meanwhile
             --> reads.rhai:9:45
              |
            9 | check_within("all answer", "Ns", || t.names.all(|n| t.nodes[n].ping(t.ip[n]).ok));
              |                                             ^^^
              |
              = hint: take what the closure needs out before: `let want = t.want;`, and use `want` in it
            --- exit code 1
        "#]]);
        w.write(
            "writes.rhai",
            r#"netns("h1");
let t = #{ list: [1, 2], want: 2 };
fn kept(t) {
    t.list.retain(|x| x != t.want);
}
"#,
        );
        w.session(expect![[r#"
            $ topo run writes.rhai
            --- stderr
            error: `retain` works on a part of `t`, which its closure reads meanwhile
             --> writes.rhai:4:12
              |
            4 |     t.list.retain(|x| x != t.want);
              |            ^^^^^^
              |
              = hint: take what the closure needs out before: `let want = t.want;`, and use `want` in it
            --- exit code 1
            $ topo check writes.rhai
            --- stderr
            error: `retain` works on a part of `t`, which its closure reads meanwhile
             --> writes.rhai:4:12
              |
            4 |     t.list.retain(|x| x != t.want);
              |            ^^^^^^
              |
              = hint: take what the closure needs out before: `let want = t.want;`, and use `want` in it
            1 mistake found
            --- exit code 1
        "#]]);
    });
}

/// A late refusal shows who called, through functions, arguments on other lines and closures that are handed on; a call of before is not
/// taken for one that led there.
#[test]
fn a_chain_of_a_late_refusal_through_closures() {
    as_root(|w| {
        w.write(
            "chain.rhai",
            r#"fn route(h) { h.route("default", #{ via: "192.0.2.1" }); h }
fn same(h) { h }
fn each(list, f) {
    same(list);
    list.map(f)
}
let h = netns("h1");
same(
    h);
each([same(h)],
    |h| route(
        same(h)));
same(h).devs();
"#,
        );
        w.session(expect![[r#"
            $ topo run chain.rhai
            --- stderr
            error: add route `default via 192.0.2.1` to netns `h1`: Nexthop has invalid gateway
              --> chain.rhai:1:17
               |
             1 | fn route(h) { h.route("default", #{ via: "192.0.2.1" }); h }
               |                 ^^^^^
               |
              ::: chain.rhai:11:9
               |
            11 |     |h| route(
               |         ----- called from here
               |
               = hint: a gateway must be on a network that `h1` has an address in; `onlink: true` takes it to be there
            everything that lab `chain` had made was taken back
            --- exit code 1
        "#]]);
    });
}
