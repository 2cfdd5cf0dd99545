//! Scripts of others: what `--no-exec` refuses, and whose files are used as the user's own.

use std::collections::BTreeSet;

use super::{as_root, as_user};
use crate::world::World;

/// What reaches beyond the lab, each with a part of what is said of it.
const BEYOND: [(&str, &str); 10] = [
    (r#"host.exec("touch made")"#, "run `touch made` in netns `host`"),
    (r#"h.exec(["touch", "made"], #{ deadline: "5s" })"#, "in netns `h`"),
    (r#"h.start("touch made")"#, "start `touch made` in netns `h`"),
    (r#"h.start(["touch", "made"], #{ ready: 80 })"#, "lets a script run no commands"),
    (r#"netns_open("/proc/self/ns/net")"#, "open the netns `/proc/self/ns/net`"),
    (r#"netns_of("/proc/self/ns/net")"#, "lets a script open no files"),
    (r#"netns_of_pid(1)"#, "open the netns of process 1"),
    (r#"import "./other" as other; other::f()"#, "import \"./other\""),
    (r#"import "/etc/passwd" as other; other::f()"#, "import \"/etc/passwd\""),
    // What a module of the library does for a script is refused likewise.
    (r#"import "dns" as dns; dns::resolve(h, "a.example", "10.0.0.1")"#, "lets a script run no commands"),
];

/// A script of a stranger can't run commands or open files, caught or not, in whatever way it is run.
fn refuses(w: &World) {
    w.write("other.rhai", "fn f() { host.exec(\"touch made\"); }");
    for (line, said) in BEYOND {
        println!("{line}");
        let ran = w.topo(&["run", "--no-exec", "-e", &format!("let h = netns(\"h\");\n{line};")]).fails(1);
        assert!(ran.err().contains(said) && ran.err().contains("-e:2"), "{}", ran.err());
    }
    // All of them caught, by one run each: from a file, as a test, at a prompt.
    let caught: String = BEYOND
        .iter()
        .map(|(line, _)| {
            format!("try {{ {line}; throw \"was allowed\"; }} catch (e) {{ assert_eq(e.kind, \"denied\"); }}\n")
        })
        .collect();
    w.write("caught.rhai", &format!("let h = netns(\"h\");\n{caught}"));
    w.topo(&["run", "--rm", "--no-exec", "caught.rhai"]).ok();
    w.write("t.rhai", &format!("fn test_caught() {{ let h = netns(\"h\");\n{caught} }}"));
    w.topo(&["test", "--no-exec", "t.rhai"]).ok();
    let session: String =
        BEYOND.iter().map(|(line, _)| format!("try {{ {line}; print(\"allowed\"); }} catch {{}}\n")).collect();
    let said = w.topo_stdin(&format!("let h = netns(\"h\");\n{session}"), &["repl", "--no-exec"]).ok();
    assert!(!said.out().contains("allowed"), "{}", said.out());
    w.run("test ! -e made").ok();
}

#[test]
fn commands_and_files_are_refused() {
    as_root(refuses);
}

#[test]
fn commands_and_files_are_refused_in_a_sandbox() {
    as_user(refuses);
}

/// Networks, probes, the built-in servers and the library stay; so do networks of containers.
#[test]
fn networks_are_not_refused() {
    as_root(|w| {
        let script = r#"
            import "network" as network;
            import "lan" as lan;
            let hosts = lan::star("sw", 2, net("10.9.0.0/24"));
            let h = netns("h");
            h.serve("http", 80, #{ body: "hello" });
            assert_eq(h.http("http://127.0.0.1/").body, "hello");
            h.sysctl("net.ipv4.ip_forward", 1);
            network::create("web", #{ subnet: "10.8.0.0/24" });
            network::connect("web", h);
            assert(h.ping("10.8.0.1").ok);
            try { h.sysctl("net/../../etc/passwd"); throw "read"; } catch (e) { assert_eq(e.kind, "invalid"); }"#;
        w.write("lab.rhai", script);
        w.topo(&["run", "--rm", "--no-exec", "lab.rhai"]).ok();
    });
}

/// Each entry of the catalogue whose parameter is a command, a path or a process is among those that are tried above.
#[test]
fn no_entry_that_reaches_beyond_is_forgotten() {
    let reference = include_str!("../../../docs/reference.md");
    let names = reference.lines().filter_map(|line| {
        let (name, parameters) = line.split_once('(')?;
        let name = name.strip_prefix("netns.").unwrap_or(name);
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let beyond =
            ["command:", "path:", "file:", "pid:", "program:", "dir:"].iter().any(|word| parameters.contains(word));
        (is_name && line.contains(" -> ") && beyond).then_some(name)
    });
    assert_eq!(names.collect::<BTreeSet<_>>(), ["exec", "netns_of_pid", "netns_open", "start"].into());
}

/// The user's own modules and workflows are used only if nobody else could have written them: the file, its directory, those above, and
/// what a symbolic link leads to. What is wrong is named, with the way to mend it.
fn whose_files(w: &World) {
    let run = r#"umask 022; mkdir -p up/lib/drivers up/scripts; echo 'fn f() { 7 }' >up/lib/mine.rhai; cp up/lib/mine.rhai up/lib/drivers/d.rhai
        echo '//! Says hello.
        print("hello");' >up/scripts/hello.rhai"#;
    w.run(run).ok();
    let env = [("TOPO_STDLIB", "up/lib"), ("TOPO_SCRIPTS", "up/scripts")];
    let import = ["run", "--rm", "-e", r#"import "mine" as mine; print(mine::f());"#];
    let allowed = |what: &str| {
        println!("{what}");
        assert_eq!(w.topo_env(&env, &import).ok().out(), "7\n");
        assert_eq!(w.topo_env(&env, &["hello"]).ok().out(), "hello\n");
    };
    let refused = |what: &str, said: &str, mend: &str| {
        w.run_as_root(what).ok();
        for words in [&import[..], &["hello"]] {
            let ran = w.topo_env(&env, words).fails(1);
            assert!(ran.err().contains(said) && ran.out().is_empty(), "{what}: {}", ran.err());
        }
        // What runs no scripts goes on.
        w.topo_env(&env, &["ls"]).ok();
        w.run_as_root(mend).ok();
        allowed(mend);
    };
    allowed("nobody else's");
    refused("chmod 666 up/lib/mine.rhai", "hint: `chmod go-w ", "chmod go-w up/lib/mine.rhai");
    refused("chmod 664 up/scripts/hello.rhai", "others can write `", "chmod go-w up/scripts/hello.rhai");
    refused("chmod 777 up/lib/drivers", "up/lib/drivers` (mode 0777)", "chmod go-w up/lib/drivers");
    refused("chmod 1777 up/scripts", "up/scripts` (mode 1777)", "chmod 755 up/scripts");
    refused("chmod 775 up", "/up` (mode 0775)", "chmod go-w up");
    refused(
        "mv up/lib elsewhere; chmod 777 elsewhere; ln -s ../elsewhere up/lib",
        "/elsewhere` (mode 0777)",
        "chmod 755 elsewhere",
    );
    refused(
        "chmod 777 elsewhere/drivers; mv elsewhere/mine.rhai elsewhere/drivers/m; ln -s drivers/m elsewhere/mine.rhai",
        "/elsewhere/drivers` (mode 0777)",
        "chmod 755 elsewhere/drivers",
    );
    // With a group or a user of its own, where the world has others.
    if w.run_as_root("chown 4321 elsewhere/drivers/d.rhai").code == 0 {
        refused("true", "belongs to user 4321", "chown --reference=elsewhere elsewhere/drivers/d.rhai");
    }
}

#[test]
fn own_scripts_are_nobody_elses() {
    as_root(whose_files);
}

#[test]
fn own_scripts_of_an_ordinary_user_are_nobody_elses() {
    as_user(whose_files);
}
