//! The keys of what functions return: as documented, and no others.

use std::collections::BTreeMap;

use expect_test::expect;
use toposcript::for_tests::{Dirs, Entry, Script, Texts, check, library, primitives, result_keys};

use super::{Terminal, as_root, as_user};

/// What each function is called as, whose documentation names the keys of its result.
const CALLS: &[(&str, &str)] = &[
    ("bird::run", "bird::run(p, #{ id: \"10.0.0.1\" })"),
    ("dhcp::client", "dhcp::client(leasing)"),
    ("dhcp::server", "dhcp_server"),
    ("dns::server", "dns::server(p, #{})"),
    ("exec", "left.exec(\"true\")"),
    ("http", "left.http(\"http://10.0.0.2/\", #{ deadline: \"100ms\" })"),
    ("ipam_pool", "ipam_pool(\"10.8.0.0/24\", #{})"),
    ("lab_mend", "lab_mend(\"part\")"),
    ("lan::star", "lan::star(\"sw1\", 2, net(\"10.1.0.0/24\"))"),
    ("mtu", "left.mtu(\"10.0.0.2\")"),
    ("nat::carrier_grade", "nat::carrier_grade(\"isp\", street, #{ addr: \"192.0.2.9/24\", homes: 1 })"),
    ("nat::home", "nat::home(\"home\", street, #{ addr: \"192.0.2.7/24\" })"),
    ("network::mend", "network::mend(\"web\")"),
    ("ping", "left.ping(\"10.0.0.2\")"),
    ("ping_all", "ping_all([left, right])"),
    ("port_mapping", "port_mapping(\"8080:80\")"),
    ("router::create", "router::create(\"r1\", #{ wan0: #{ to: street, addr: \"192.0.2.8/24\" } })"),
    ("sees", "right.sees(left)"),
    ("segment::create", "segment::create(\"s2\", #{ subnet: \"10.3.0.0/24\" })"),
    ("segment::join", "segment::join(street, p)"),
    ("stop", "left.start(\"sleep 9\").stop()"),
    ("tcp", "left.tcp(\"10.0.0.2:80\", #{ deadline: \"100ms\" })"),
    ("throughput", "left.throughput(right, #{ proto: \"udp\", rate: \"1mbit\", time: \"200ms\", omit: \"0ms\" })"),
    ("topology::fat_tree", "topology::fat_tree(2, #{ names: numbered(\"f\", 5), hosts: 0 })"),
    ("topology::graph", "topology::graph([\"ga\", \"gb\"], [[\"ga\", \"gb\"]])"),
    ("topology::leaf_spine", "topology::leaf_spine(1, 1, 0)"),
    ("topology::line", "topology::line(2, #{ names: \"l\" })"),
    ("topology::link", "topology::link(topology::line(2, #{ names: \"k\" }), \"k1\", \"k2\")"),
    ("topology::mesh", "topology::mesh(2, #{ names: \"m\" })"),
    ("topology::random", "topology::random(2, 1, 1, #{ names: \"c\" })"),
    ("topology::ring", "topology::ring(3, #{ names: \"g\" })"),
    ("topology::star", "topology::star(1, #{ names: \"s\", switched: true, host_names: \"sh\" })"),
    ("topology::torus", "topology::torus(3, 3, #{ names: \"t\" })"),
    ("topology::tree", "topology::tree(2, 1, #{ names: \"e\" })"),
    ("trace", "left.trace(\"10.0.0.2\")"),
    ("udp", "left.udp(\"10.0.0.2:80\", #{ deadline: \"100ms\" })"),
    ("wait", "left.start(\"true\").wait()"),
];

/// The keys that a documentation names are those that the call returns: `check` judges by them.
#[test]
fn results_have_the_keys_of_their_documentation() {
    let entries: Vec<Entry> = primitives().into_iter().chain(library(&Dirs::default())).collect();
    let documented: BTreeMap<String, Vec<String>> =
        entries.iter().filter_map(|entry| Some((entry.full_name(), result_keys(entry, &entries)?))).collect();
    let names = |names: &mut dyn Iterator<Item = &str>| names.map(String::from).collect::<Vec<_>>();
    assert_eq!(
        names(&mut documented.keys().map(String::as_str)),
        names(&mut CALLS.iter().map(|(name, _)| *name)),
        "documented (left), called here (right)"
    );
    as_root(|w| {
        // The namespaces are not topo's: the results are the same for found ones.
        w.run(
            "ip netns add left && ip netns add right && ip -n left link add eth0 type veth peer name eth0 netns right && \
             ip -n left addr add 10.0.0.1/24 dev eth0 && ip -n right addr add 10.0.0.2/24 dev eth0 && \
             for n in left right; do ip -n $n link set eth0 up; ip -n $n link set lo up; done",
        )
        .ok();
        let mut script = String::from(
            "import \"lan\" as lan; import \"segment\" as segment; import \"nat\" as nat; import \"router\" as router;\n\
             import \"bird\" as bird; import \"dhcp\" as dhcp; import \"dns\" as dns; import \"network\" as network;\n\
             import \"topology\" as topology;\n\
             fn numbered(prefix, count) { let all = []; for n in 0..count { all.push(`${prefix}${n}`); } all }\n\
             let serving = netns(\"serving\"); let leasing = netns(\"leasing\"); veth(serving[\"eth0\"], leasing[\"eth0\"]);\n\
             serving[\"eth0\"].addr(\"10.9.0.1/24\");\n\
             let dhcp_server = dhcp::server(serving, #{ range: \"10.9.0.9-10.9.0.19\" }); lab_within(\"part\", #{}, || { netns(\"inner\"); });\n\
             network::create(\"web\", #{ subnet: \"10.5.0.0/24\" });\n\
             let left = netns_get(\"left\"); let right = netns_get(\"right\"); let p = netns(\"p\");\n\
             let street = segment::create(\"street\", #{ subnet: \"192.0.2.0/24\" });\n",
        );
        for (name, call) in CALLS {
            script.push_str(&format!("{{ let keys = {call}.keys(); keys.sort(); print(`{name}: ${{keys}}`); }}\n"));
        }
        let ran = w.topo_stdin(&script, &["run", "--rm", "--name", "results", "-"]).ok();
        for (name, keys) in documented {
            let mut keys = keys;
            keys.sort();
            let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
            ran.says(&format!("{name}: [{}]\n", keys.join(", ")));
        }
        w.run("ip netns del left; ip netns del right; umount /run/netns; rmdir /run/netns").ok();
    });
}

/// A key that no result of the function has is found before the script runs: in functions, and in texts in backticks.
#[test]
fn check_finds_keys_that_a_result_lacks() {
    as_user(|w| {
        w.write(
            "keys.rhai",
            r#"import "lan" as lan;
let lan1 = lan::star("sw0", 2, net("10.0.0.0/24"));
let p = lan1.hosts[0].ping("10.0.0.2");
if p.okk { print(`lost ${p.lost}, of ${lan1.hsts.len()}`); }
fn uptime(h) {
    let p = h.exec("uptime");
    `${p.cod}: ${p.stdout} ${lenn(p.stdout)}`
}
fn more(h) {
    let p = h.exec("uptime");
    p.uptime = 1;
    p.uptime
}
"#,
        );
        w.session(expect![[r#"
            $ topo check keys.rhai
            --- stderr
            error: unknown property `okk` of `p`, which `ping` returned
             --> keys.rhai:4:6
              |
            4 | if p.okk { print(`lost ${p.lost}, of ${lan1.hsts.len()}`); }
              |      ^^^
              |
              = hint: did you mean `ok`? it has `ok`, `sent`, `received`, `duplicates`, `loss_percent`, `rtt_min_ms`, `rtt_avg_ms`, `rtt_max_ms`, `why`
            error: unknown property `lost` of `p`, which `ping` returned
             --> keys.rhai:4:28
              |
            4 | if p.okk { print(`lost ${p.lost}, of ${lan1.hsts.len()}`); }
              |                            ^^^^
              |
              = hint: it has `ok`, `sent`, `received`, `duplicates`, `loss_percent`, `rtt_min_ms`, `rtt_avg_ms`, `rtt_max_ms`, `why`
            error: unknown property `hsts` of `lan1`, which `lan::star` returned
             --> keys.rhai:4:45
              |
            4 | if p.okk { print(`lost ${p.lost}, of ${lan1.hsts.len()}`); }
              |                                             ^^^^
              |
              = hint: did you mean `hosts`? it has `bridge`, `hosts`, `subnet`
            error: unknown property `cod` of `p`, which `exec` returned
             --> keys.rhai:7:10
              |
            7 |     `${p.cod}: ${p.stdout} ${lenn(p.stdout)}`
              |          ^^^
              |
              = hint: did you mean `code`? it has `ok`, `code`, `stdout`, `stderr`
            error: unknown function `lenn`
             --> keys.rhai:7:30
              |
            7 |     `${p.cod}: ${p.stdout} ${lenn(p.stdout)}`
              |                              ^^^^
              |
              = hint: did you mean `len`?
            5 mistakes found
            --- exit code 1
        "#]]);
    });
}

/// A wrong key of a result that is in no variable, of one that another function returns, and of what is described by reference.
#[test]
fn check_finds_keys_that_a_call_lacks() {
    as_user(|w| {
        w.write(
            "calls.rhai",
            r#"import "topology" as topology;
import "bird" as bird;
let t = topology::ring(3, #{ routes: false });
if t.nodes.r1.ping(t.ip.r2).okk { print(`${t.nodes.r1.exec("uptime").cod}`); }
let names = t.nams;
let daemon = bird::run(t.nodes.r1, #{ ospf: #{} }).proces;
let mine = #{ udp: |x| #{ okk: x } };
print(mine.udp(1).okk);
let port = port_mapping("80:80").prot;
"#,
        );
        w.session(expect![[r#"
            $ topo check calls.rhai
            --- stderr
            error: unknown property `okk` of what `ping` returned
             --> calls.rhai:4:29
              |
            4 | if t.nodes.r1.ping(t.ip.r2).okk { print(`${t.nodes.r1.exec("uptime").cod}`); }
              |                             ^^^
              |
              = hint: did you mean `ok`? it has `ok`, `sent`, `received`, `duplicates`, `loss_percent`, `rtt_min_ms`, `rtt_avg_ms`, `rtt_max_ms`, `why`
            error: unknown property `cod` of what `exec` returned
             --> calls.rhai:4:70
              |
            4 | if t.nodes.r1.ping(t.ip.r2).okk { print(`${t.nodes.r1.exec("uptime").cod}`); }
              |                                                                      ^^^
              |
              = hint: did you mean `code`? it has `ok`, `code`, `stdout`, `stderr`
            error: unknown property `nams` of `t`, which `topology::ring` returned
             --> calls.rhai:5:15
              |
            5 | let names = t.nams;
              |               ^^^^
              |
              = hint: did you mean `names`? it has `nodes`, `hosts`, `names`, `host_names`, `ip`, `ip6`, `links`, `ends`, `switched`
            error: unknown property `proces` of what `bird::run` returned
             --> calls.rhai:6:52
              |
            6 | let daemon = bird::run(t.nodes.r1, #{ ospf: #{} }).proces;
              |                                                    ^^^^^^
              |
              = hint: did you mean `process`? it has `process`, `netns`, `config`
            error: unknown property `prot` of what `port_mapping` returned
             --> calls.rhai:9:34
              |
            9 | let port = port_mapping("80:80").prot;
              |                                  ^^^^
              |
              = hint: did you mean `port`? it has `host_ip`, `port`, `to_port`, `proto`, `text`, `choice`
            5 mistakes found
            --- exit code 1
        "#]]);
    });
}

/// What runs into it says which keys there are, in a function's own variable too.
#[test]
fn a_run_names_the_keys_of_a_result() {
    as_root(|w| {
        w.write("f.rhai", "fn f(h) {\n    let p = h.exec(\"true\");\n    `${p.cod}`\n}\nf(netns(\"h\"));\n");
        w.session(expect![[r#"
            $ topo run f.rhai
            --- stderr
            error: unknown property `cod`
             --> f.rhai:3:10
              |
            3 |     `${p.cod}`
              |          ^^^
              |
             ::: f.rhai:5:1
              |
            5 | f(netns("h"));
              | - called from here
              |
              = hint: did you mean `code`? it has `ok`, `code`, `stdout`, `stderr`
            everything that lab `f` had made was taken back
            --- exit code 1
        "#]]);
    });
}

/// False alarms: of all scripts that come with the program, and of all tests in Rhai, only the lines are wrong that are marked so.
#[test]
fn check_finds_nothing_in_what_works() {
    let mut files = Vec::new();
    for folder in ["scripts", "stdlib", "examples", "tests/suite", "tests/stdlib"] {
        crate::tidy::files(&crate::tidy::root().join(folder), "rhai", &mut files);
    }
    assert!(files.len() > 60, "only {} files were found", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let script = Script::read(&file).expect("read a script");
        for failure in check(&script, &Dirs::default(), &Texts::default()) {
            let line = failure.place.spot().and_then(|spot| script.text.lines().nth(spot.line - 1)).unwrap_or_default();
            if !line.contains("//~ ") {
                wrong.push(format!("{}: {}: {line}", file.display(), failure.message));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
