//! Help, documentation, workflows and completion.

use expect_test::expect;
use serde_json::Value;
use toposcript::for_tests::{Dirs, library, primitives};

use super::{Terminal, as_root};
use crate::world::World;

#[test]
fn the_commands() {
    let world = World::new();
    world.session(expect![[r#"
        $ topo --help
        Builds, checks and takes down real Linux networks from a script

        Usage: topo <COMMAND>

        Commands:
          run           Runs a script: builds its lab, and leaves it up
          repl          Builds a lab by hand, at a prompt
          test          Runs tests, each in a sandbox of its own
          check         Checks a script without running it: syntax, unknown functions, wrong arguments,
                        unknown options
          ls            Lists the labs
          show          Shows what a lab holds: namespaces, devices, addresses, routes
          repair        Puts back what others took from a lab
          down          Takes labs down, with all that they made
          exec          Runs a command in a namespace of a lab
          logs          Shows what the processes of a lab have written
          gc            Removes what dead runs left behind
          doc           Shows the documentation of a primitive, a library function or a workflow
          doctor        Tells what this machine can do, and how to get what is missing
          scripts       Lists the workflows: the scripts that are commands of topo
          hook          Connects containers as a hook of runc, crun and other OCI runtimes
          cdi           Makes networks known to Podman, Docker and others as devices (CDI)
          cni           Is the CNI plugin, for containerd, CRI-O, Podman and Nomad
          docker        Is the network driver of Docker
          completions   Prints a completion script for a shell
          bridge        A netns plugged into a bridge of the host, reached from the host by a route over the
                        bridge
          masquerade    A netns that reaches the world outside by the host's own address: forwarding and
                        masquerading
          network       Workflows of `network`
          port-forward  A port of the host that leads to a server in a netns: reached from outside, from the
                        host by any of its addresses and 127.0.0.1, and from the netns itself
          veth-pair     Two netns joined by a veth pair, with addresses, default routes and a ping
          help          Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Begin with:
          topo run examples/01-pair.rhai    build a lab, and be told what it holds
          topo ls                           list the labs that are up
          topo doc veth                     read about a primitive
          topo scripts                      list the workflows, which are commands too

        Environment:
          TOPO_STATE    The state directory
          TOPO_STORE    The store, which outlives a restart
          TOPO_STDLIB   The user's own modules
          TOPO_SCRIPTS  The user's own workflows
          NO_COLOR      If it is not empty, nothing is printed in colours

        Exit codes: 0 done, 1 the command, the script, a check or a test failed, 2 wrong usage, 3 this
        machine lacks something (`topo doctor`), 126 `topo exec` can't run the command, 127 `topo exec`
        finds no such command, 129 the terminal was closed, 130 interrupted (Ctrl-C), 143 terminated.
        $ topo --version
        topo 0.1.0
    "#]]);
    let short = world.topo(&["-h"]).ok();
    assert_eq!(world.topo(&["--help"]).ok().out(), short.out());
    // Without arguments the same is told, as wrong usage.
    let none = world.topo(&[]).fails(2);
    assert_eq!((none.out(), none.err()), ("", short.out()));
}

#[test]
fn help_of_commands() {
    World::new().session(expect![[r#"
        $ topo run --help
        Runs a script: builds its lab, and leaves it up

        Usage: topo run [OPTIONS] FILE [ARGS]...
               topo run [OPTIONS] -e STATEMENTS [ARGS]...

        Arguments:
          [FILE]...  The script, or `-` for standard input, and its arguments

        Options:
          -e, --exec <STATEMENTS>  Run these statements instead of a file
          -h, --help               Print help
          -V, --version            Print version

        Run options:
              --rm           Take the lab down at the end
              --keep         Keep what was built even if the script fails
              --sandbox      Build the lab in a private machine of its own (always so without root)
              --no-exec      Refuse the script all commands (`exec`, `start`) and files: for scripts of
                             strangers
              --trace        Print each step with the commands that do the same
              --json         Print the result as JSON
              --name <NAME>  Name the lab
        $ topo down -h
        Takes labs down, with all that they made

        Usage: topo down [OPTIONS] [LAB]...

        Arguments:
          [LAB]...  The labs

        Options:
              --all      Take all labs down; container networks stay, which `topo network rm` removes
              --force    Take down a damaged lab as far as possible, say what is left, and forget it
              --forget   Only remove what is known of a lab, and leave alone what it made: for one whose
                         container has ended; `gc` frees its addresses
              --trace    Print each step that is taken back
          -h, --help     Print help
          -V, --version  Print version
        $ topo exec -h
        Runs a command in a namespace of a lab

        Usage: topo exec <[LAB/]NETNS> [COMMAND]...

        Arguments:
          <[LAB/]NETNS>  The namespace; the lab may be left out where only one has a namespace of that name
          [COMMAND]...   The command and its arguments; a shell unless given

        Options:
          -h, --help     Print help
          -V, --version  Print version
    "#]]);
}

#[test]
fn help_of_a_workflow() {
    let world = World::new();
    world.session(expect![[r#"
        $ topo veth-pair -h
        Two netns joined by a veth pair, with addresses, default routes and a ping

        Usage: topo veth-pair [OPTIONS]

        Options:
              --subnet <CIDR>  the network of the two addresses, its second and third host [default:
                               172.18.0.0/24]
              --left <NAME>    the first netns [default: ns1]
              --right <NAME>   the second netns [default: ns2]
              --count <N>      how many echoes are sent [default: 1]
          -h, --help           Print help (see more with '--help')

        Run options:
              --rm           Take the lab down at the end
              --keep         Keep what was built even if the script fails
              --sandbox      Build the lab in a private machine of its own (always so without root)
              --no-exec      Refuse the script all commands (`exec`, `start`) and files: for scripts of
                             strangers
              --trace        Print each step with the commands that do the same
              --json         Print the result as JSON
              --name <NAME>  Name the lab
    "#]]);
    for args in [["veth-pair", "--help"], ["doc", "veth-pair"]] {
        let long = world.topo(&args).ok();
        long.says("    ip netns add ns1\n").says("--subnet <CIDR>").says("[default: 172.18.0.0/24]");
    }
}

#[test]
fn wrong_usage() {
    World::new().session(expect![[r#"
        $ topo lss
        --- stderr
        error: unrecognized subcommand 'lss'

          tip: some similar subcommands exist: 'logs', 'ls'

        Usage: topo <COMMAND>

        For more information, try '--help'.
        --- exit code 2
        $ topo run --kep x.rhai
        --- stderr
        error: unexpected argument '--kep' found

          tip: a similar argument exists: '--keep'

        Usage: topo run [OPTIONS] FILE [ARGS]...

        For more information, try '--help'.
        --- exit code 2
        $ topo run --zebra
        --- stderr
        error: unexpected argument '--zebra' found

        Usage: topo run [OPTIONS] FILE [ARGS]...

        For more information, try '--help'.
        --- exit code 2
        $ topo run --rm --keep x.rhai
        --- stderr
        error: the argument '--rm' cannot be used with '--keep'

        Usage: topo run [OPTIONS] FILE [ARGS]...
               topo run [OPTIONS] -e STATEMENTS [ARGS]...

        For more information, try '--help'.
        --- exit code 2
        $ topo run
        --- stderr
        error: no script is given

        Usage: topo run [OPTIONS] FILE [ARGS]...

        hint: `topo run -e 'STATEMENTS'` runs statements, `topo scripts` lists the workflows
        --- exit code 2
        $ topo show
        --- stderr
        error: the following required arguments were not provided:
          <LAB>

        Usage: topo show <LAB>

        For more information, try '--help'.
        --- exit code 2
        $ topo down
        --- stderr
        error: the following required arguments were not provided:
          <LAB>...

        Usage: topo down <LAB>...

        For more information, try '--help'.
        --- exit code 2
        $ topo check
        --- stderr
        error: the following required arguments were not provided:
          <FILE>...

        Usage: topo check <FILE>...

        For more information, try '--help'.
        --- exit code 2
        $ topo veth-pair --subnet 10.0.0.5/24
        --- stderr
        error: invalid value '10.0.0.5/24' for '--subnet <CIDR>': host bits are set; did you mean `10.0.0.0/24`?

        For more information, try '--help'.
        --- exit code 2
        $ topo veth-pair --count many
        --- stderr
        error: invalid value 'many' for '--count <N>': not a whole number

        For more information, try '--help'.
        --- exit code 2
    "#]]);
}

/// Everything that a script can call stands in the list with its first sentence, and has a page of its own.
#[test]
fn documentation_of_everything() {
    let world = World::new();
    let list = world.topo(&["doc"]).ok();
    for entry in primitives().iter().chain(&library(&Dirs::default())) {
        let (name, sentence) = (entry.full_name(), entry.doc.sentence());
        let told = list.out().lines().any(|line| line.trim_start().starts_with(&name) && line.ends_with(sentence));
        assert!(told, "`topo doc` lacks {name}: {sentence}");
        let page = world.topo(&["doc", &name]).ok();
        for signature in &entry.signatures {
            page.says(signature);
        }
        page.says(sentence.split(' ').next().expect("a word"));
    }
    list.says("veth-pair").says("Network namespaces").says("import \"NAME\"");
}

#[test]
fn documentation_of_one() {
    let world = World::new();
    world.session(expect![[r#"
        $ topo doc neigh
        netns.neigh(address: any, options: map) -> Netns

          Adds a neighbour that stays: the namespace reaches `ip` at this hardware address without
          asking. What the kernel has found out about `ip` by itself gives way.

            dev  The device behind which the neighbour is. (a device such as h["eth0"], or its name)
            mac  The neighbour's hardware address. (a hardware address such as "02:00:00:00:00:01")

          Like `ip neigh replace IP lladdr MAC nud permanent dev DEV`.

          Fails with `invalid` where `dev` or `mac` is not given, and with `exists` where somebody has
          added this neighbour.

          Example:

            let h = netns("h1");
            veth(h["eth0"], "up0");
            h["eth0"].addr("10.0.0.1/24");
            h.neigh("10.0.0.9", #{ dev: h["eth0"], mac: "02:00:00:00:00:09" });
            assert(h.neighs().some(|n| n.ip == ip("10.0.0.9") && n.mac == "02:00:00:00:00:09"));

        $ topo doc lan::star
        lan::star(name, count, subnet)

          Makes `count` hosts `h1`, `h2` … with an `eth0` each, on the switch `name` of the host,
          addressed out of `subnet` from its first address on. Returns `#{ bridge, hosts, subnet }`.

          Like `ip link add NAME type bridge`, then an `ip netns add`, an `ip link add … type veth` and
          an `ip addr add` for each host.

          Fails with `exists` where a name is taken, and with `invalid` where the subnet has too few
          addresses.

          Example:

            import "lan" as lan;
            let office = lan::star("sw0", 3, net("10.0.0.0/24"));
            assert(office.hosts[0].ping("10.0.0.3").ok);

        $ topo doc .mtu
        dev.mtu -> int

          Returns the MTU of a device in bytes.

        $ topo doc veht
        --- stderr
        error: find the documentation of `veht`: nothing has this name
        hint: did you mean `veth`?
        --- exit code 1
        $ topo doc zebra
        --- stderr
        error: find the documentation of `zebra`: nothing has this name
        hint: `topo doc` lists what there is
        --- exit code 1
    "#]]);
    // As it is often typed.
    assert_eq!(world.topo(&["doc", "neigh()"]).ok().out(), world.topo(&["doc", "neigh"]).ok().out());
    assert_eq!(world.topo(&["doc", "kernel_name"]).ok().out(), world.topo(&["doc", ".kernel_name"]).ok().out());
}

#[test]
fn definitions_for_editors() {
    let ran = World::new().topo(&["doc", "--definitions"]).ok();
    ran.says("module static;").says("fn veth(").says("fn ping(").says("/// Lays a cable");
}

#[test]
fn workflows() {
    let world = World::new();
    let text = world.topo(&["scripts"]).ok();
    text.says("veth-pair           Two netns joined by a veth pair, with addresses, default routes and a ping.");
    let json: Value = serde_json::from_str(world.topo(&["scripts", "--json"]).ok().out()).expect("JSON");
    let rows = json.as_array().expect("a list");
    for row in rows {
        text.says(row["name"].as_str().expect("a name"));
    }
    let pair = rows.iter().find(|row| row["name"] == "veth-pair").expect("veth-pair");
    assert_eq!((&pair["own"], &pair["script"]), (&false.into(), &"scripts/veth-pair.rhai".into()));
    let source = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/veth-pair.rhai"));
    assert_eq!(world.topo(&["scripts", "--source", "veth-pair"]).ok().out(), source);
    world.session(expect![[r#"
        $ topo scripts --source veth-pear
        --- stderr
        error: find workflow `veth-pear`: there is none of this name
        hint: did you mean `veth-pair`?
        --- exit code 1
    "#]]);
}

/// A directory of the user's own: a command, one in a group, an embedded one replaced; a command of topo's is never hidden.
#[test]
fn workflows_of_the_users_own() {
    as_root(|w| {
        let hello = "//! Says hello.\n//!\n//! Arguments:\n//!   NAME  to whom\nprint(`hello ${args.name}`);\n";
        w.write("own/hello.rhai", hello);
        w.write("own/site/build.rhai", "//! Builds the site.\nnetns(\"h1\");\n");
        w.write("own/bridge.rhai", "//! A bridge of my own.\nprint(\"mine\");\n");
        w.write("own/ls.rhai", "//! Is hidden by topo's own.\nprint(\"mine\");\n");
        w.write("own/notes.txt", "no script");
        w.session(expect![[r#"
            $ TOPO_SCRIPTS=own topo hello world
            hello world
            $ TOPO_SCRIPTS=own topo hello
            --- stderr
            error: the following required arguments were not provided:
              <NAME>

            Usage: topo hello <NAME>

            For more information, try '--help'.
            --- exit code 2
            $ TOPO_SCRIPTS=own topo hello -h
            Says hello

            Usage: topo hello [OPTIONS] <NAME>

            Arguments:
              <NAME>  to whom

            Options:
              -h, --help  Print help

            Run options:
                  --rm           Take the lab down at the end
                  --keep         Keep what was built even if the script fails
                  --sandbox      Build the lab in a private machine of its own (always so without root)
                  --no-exec      Refuse the script all commands (`exec`, `start`) and files: for scripts of
                                 strangers
                  --trace        Print each step with the commands that do the same
                  --json         Print the result as JSON
                  --name <NAME>  Name the lab
            $ TOPO_SCRIPTS=own topo site build --rm
            $ TOPO_SCRIPTS=own topo site
            --- stderr
            Workflows of `site`

            Usage: topo site <COMMAND>

            Commands:
              build  Builds the site
              help   Print this message or the help of the given subcommand(s)

            Options:
              -h, --help     Print help
              -V, --version  Print version
            --- exit code 2
            $ TOPO_SCRIPTS=own topo bridge
            mine
            $ TOPO_SCRIPTS=own topo ls
            --- stderr
            no lab is up
        "#]]);
        let list = w.topo_env(&[("TOPO_SCRIPTS", "own")], &["scripts"]).ok();
        list.says("hello").says("site build").says("A bridge of my own.");
        assert!(!list.out().contains("notes"), "{}", list.out());
        // The place without the variable.
        w.run("mkdir -p home/.config/toposcript; mv own home/.config/toposcript/scripts").ok();
        assert_eq!(w.topo(&["hello", "again"]).ok().out(), "hello again\n");
    });
}

/// A file that can't be read keeps nothing else from working; a wrong header is told when it is run.
#[test]
fn broken_workflows_of_the_users_own() {
    as_root(|w| {
        w.write("own/fine.rhai", "//! Is fine.\nprint(\"fine\");\n");
        w.write("own/headless.rhai", "//! Breaks.\n//!\n//! Arguments:\n//!   nonsense\n");
        w.run("printf '\\377' >own/binary.rhai").ok();
        w.session(expect![[r#"
            $ TOPO_SCRIPTS=own topo fine
            fine
            $ TOPO_SCRIPTS=own topo headless
            --- stderr
            error: read the script's header: `nonsense` is not a declaration
             --> own/headless.rhai:4:1
              |
            4 | //!   nonsense
              | ^
              |
              = hint: a declaration is `NAME`, `[NAME]`, `NAME...`, `[NAME...]`, `--flag`, `-f, --flag` or `--option VALUE`, then two spaces and its description
            --- exit code 1
            $ TOPO_SCRIPTS=own topo binary
            --- stderr
            error: unrecognized subcommand 'binary'

            Usage: topo <COMMAND>

            For more information, try '--help'.
            --- exit code 2
        "#]]);
        let list = w.topo_env(&[("TOPO_SCRIPTS", "own")], &["scripts"]).fails(1);
        list.says("own/binary.rhai").says("Is fine.").says("its header is wrong");
    });
}

/// A module of the user's own hides the embedded one of its name, and is documented.
#[test]
fn modules_of_the_users_own() {
    as_root(|w| {
        w.write("own/lan.rhai", "/// Does nothing.\nfn star() { print(\"my lan\"); }\n");
        w.write("own/rack.rhai", "/// Builds a rack.\nfn build(n) { print(`rack ${n}`); }\n");
        w.session(expect![[r#"
            $ TOPO_STDLIB=own topo run -e 'import "lan" as lan; import "rack" as rack; lan::star(); rack::build(7);'
            my lan
            rack 7
            $ TOPO_STDLIB=own topo doc rack::build
            rack::build(n)

              Builds a rack.

            $ TOPO_STDLIB=own topo run -e 'import "rak" as r;'
            --- stderr
            error: import "rak": there is no module of this name
             --> -e:1:8
              |
            1 | import "rak" as r;
              |        ^^^^^
              |
              = hint: did you mean "rack"?
            --- exit code 1
        "#]]);
        w.topo_env(&[("TOPO_STDLIB", "own")], &["doc"]).ok().says("rack::build");
    });
}

/// In bash: commands, workflows, and the options of a workflow.
#[test]
fn completion_in_bash() {
    let world = World::new();
    let ran = world.topo(&["completions", "bash"]).ok();
    world.write("topo.bash", ran.out());
    let complete = |words: &str| {
        let script = format!(
            "source ./topo.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _topo topo \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        world.write("complete.bash", &script);
        world.run("bash complete.bash").ok().stdout.trim().to_owned()
    };
    assert_eq!(complete("topo veth-pair --su"), "--subnet");
    assert_eq!(complete("topo veth-p"), "veth-pair");
    assert_eq!(complete("topo sh"), "show");
    assert_eq!(complete("topo run --sa"), "--sandbox");
}

#[test]
fn completion_in_other_shells() {
    let world = World::new();
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let ran = world.topo(&["completions", shell]).ok();
        ran.says("veth-pair").says("subnet").says("sandbox");
    }
    world.session(expect![[r#"
        $ topo completions tcsh
        --- stderr
        error: invalid value 'tcsh' for '<SHELL>'
          [possible values: bash, elvish, fish, powershell, zsh]

          tip: a similar value exists: 'zsh'

        For more information, try '--help'.
        --- exit code 2
    "#]]);
}

/// A reader that goes away, such as `head`, is no error.
#[test]
fn a_closed_pipe() {
    let world = World::new();
    let topo = env!("CARGO_BIN_EXE_topo");
    for command in ["doc --markdown", "doc", "--help", "completions bash", "doc --definitions", "scripts --json", "ls"]
    {
        let script = format!("{{ {topo} {command} 2>errors; echo $? >code; }} | head -c 0; cat code errors");
        let ran = world.run(&script).ok();
        assert!(ran.out().starts_with("0\n") && !ran.out().contains("panick"), "{command}: {}", ran.out());
    }
}
