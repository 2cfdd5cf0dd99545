use clap::error::ErrorKind;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const WHOLE: &str = r#"#!/usr/bin/env -S topo run
//! Two netns joined by a veth pair, with addresses,
//! default routes and a ping.
//!
//! It replaces:
//!
//!     ip link add eth0 netns a type veth peer name eth0 netns b
//!     iptables -A FORWARD -j ACCEPT
//!
//! Arguments:
//!   NAME                 the first positional, required
//!   [TARGET]             an optional positional            [default: x]
//!   [FILE...]            the rest of the positionals
//!   --subnet CIDR        where the addresses come from     [default: 172.18.0.0/24]
//!   --count N            how many echoes to send           [default: 3]
//!   -v, --verbose        a flag
//!   --no-ping            another, e.g. for [::1]
//!   -l, --label K=V...   may be given more than once
//!   --driver NAME        one of a list                     [possible: bridge, routed, isolated]
//!                        and a continuation line of its description  [default: bridge]
//!   --gateway IP         required option                   [required]
//!   --port PORT          where it listens
//!
//! Examples:
//!   topo veth-pair lab --gateway 10.0.0.1

import "lan" as lan;
"#;

/// A header with these lines in its block of arguments; the first is on line 4 of the script.
fn script(declarations: &[&str]) -> String {
    let lines: String = declarations.iter().map(|line| format!("//!{line}\n")).collect();
    format!("//! A lab.\n//!\n//! Arguments:\n{lines}")
}

fn parsed(declarations: &[&str]) -> Header {
    Header::parse(&script(declarations)).unwrap()
}

fn error(source: &str) -> String {
    let error = Header::parse(source).unwrap_err();
    format!("{error}\n  hint: {}\n", error.hint.as_deref().unwrap_or("-"))
}

/// Each case is a block of arguments, whose lines are parted by `|`.
fn wrong(cases: &[&str], expected: Expect) {
    let errors = cases.iter().map(|case| error(&script(&case.split('|').collect::<Vec<_>>())));
    expected.assert_eq(&errors.collect::<String>());
}

fn run(header: &Header, args: &str) -> Result<Map<String, Value>, clap::Error> {
    let command = header.command("topo veth-pair").term_width(100).no_binary_name(true);
    let matches = command.try_get_matches_from(args.split_whitespace())?;
    Ok(header.values(&matches))
}

/// What a user of the whole format sees, as a transcript.
fn refused(cases: &[&str], expected: Expect) {
    let header = Header::parse(WHOLE).unwrap();
    let transcript = cases.iter().map(|args| format!("$ topo veth-pair {args}\n{}", run(&header, args).unwrap_err()));
    // clap pads the empty lines of its help.
    expected.assert_eq(
        &transcript.collect::<String>().lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>(),
    );
}

#[test]
fn the_whole_format_is_read() {
    let header = Header::parse(WHOLE).unwrap();
    assert_eq!(header.about, "Two netns joined by a veth pair, with addresses, default routes and a ping.");
    assert!(header.long.starts_with("Two netns") && header.long.ends_with("    iptables -A FORWARD -j ACCEPT"));
    assert_eq!(header.after, "Examples:\n  topo veth-pair lab --gateway 10.0.0.1");
    let lines = header.arguments.iter().map(|a| {
        let (kind, value, short) = (a.kind, a.value, a.short.map(String::from).unwrap_or_default());
        let given = match (a.required, a.repeated) {
            (true, true) => "one or more",
            (true, false) => "required",
            (false, true) => "any number",
            (false, false) => "optional",
        };
        let default = a.default.as_deref().unwrap_or("-");
        format!("{} {kind:?} {value:?} {short:?} {given} {default} {:?}\n  {}\n", a.name, a.possible, a.help)
    });
    expect![[r#"
        name Positional Name "" required - []
          the first positional, required
        target Positional Text "" optional x []
          an optional positional
        file Positional File "" any number - []
          the rest of the positionals
        subnet Option Network "" optional 172.18.0.0/24 []
          where the addresses come from
        count Option Integer "" optional 3 []
          how many echoes to send
        verbose Flag Bool "v" optional - []
          a flag
        no_ping Flag Bool "" optional - []
          another, e.g. for [::1]
        label Option KeyValue "l" any number - []
          may be given more than once
        driver Option Name "" optional bridge ["bridge", "routed", "isolated"]
          one of a list and a continuation line of its description
        gateway Option Ip "" required - []
          required option
        port Option Port "" optional - []
          where it listens
    "#]]
    .assert_eq(&lines.collect::<String>());
}

#[test]
fn a_script_without_header_has_an_empty_one() {
    for source in ["", "let a = 1;\n//! Arguments:\n", "#!/usr/bin/env topo\n// A comment.\n/// A function.\nfn f() {}"]
    {
        assert_eq!(Header::parse(source), Ok(Header::default()), "{source}");
    }
    let header = Header::parse("// SPDX-License-Identifier: MIT\n\n//! A lab.\r\n//! Of two hosts.\r\n").unwrap();
    assert_eq!((header.about.as_str(), header.long.as_str()), ("A lab. Of two hosts.", "A lab. Of two hosts."));
}

#[test]
fn values_have_their_types() {
    let header = Header::parse(WHOLE).unwrap();
    let json = |args: &str| Value::from(run(&header, args).unwrap());
    assert_eq!(
        json("lab there a b -v --count -5 --label a=1 -l b= --driver routed --gateway fd00::1 --port 80 --no-ping"),
        json!({
            "name": "lab", "target": "there", "file": ["a", "b"], "subnet": "172.18.0.0/24", "count": -5, "verbose": true,
            "no_ping": true, "label": ["a=1", "b="], "driver": "routed", "gateway": "fd00::1", "port": 80,
        })
    );
    assert_eq!(
        json("--gateway 10.0.0.1 lab"),
        json!({
            "name": "lab", "target": "x", "file": [], "subnet": "172.18.0.0/24", "count": 3, "verbose": false,
            "no_ping": false, "label": [], "driver": "bridge", "gateway": "10.0.0.1", "port": null,
        })
    );

    let header = parsed(&["   FILE...", "   -s, --size N...  [possible: 1, 2] [default: 2]"]);
    assert_eq!(Value::from(run(&header, "a b").unwrap()), json!({"file": ["a", "b"], "size": [2]}));
    assert_eq!(run(&header, "").unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    assert_eq!(run(&header, "a -s 3").unwrap_err().kind(), ErrorKind::InvalidValue);
}

#[test]
fn a_caller_may_have_arguments_of_its_own() {
    let header = Header::parse(WHOLE).unwrap();
    let topo = |script: Command| Command::new("topo").subcommand(script.arg(Arg::new("name").long("name")));
    let matches = topo(header.command("veth-pair"))
        .try_get_matches_from(["topo", "veth-pair", "lab", "--gateway", "10.0.0.1", "--name", "mine"])
        .unwrap();
    assert_eq!(header.values(matches.subcommand_matches("veth-pair").unwrap())["name"], "lab");
    let error = topo(header.command("veth-pair")).try_get_matches_from(["topo", "veth-pair"]).unwrap_err().to_string();
    assert!(error.contains("Usage: topo veth-pair --gateway <IP> <NAME>"), "{error}");
}

#[test]
fn the_user_sees_what_is_wrong() {
    refused(
        &[
            "lab --gateway 10.0.0.1 --subnt x",
            "lab --gateway",
            "lab --gateway 10.0.0.1 --subnet 10.0.0.5/24",
            "lab --gateway 10.0.0.1 --port 70000",
            "lab --gateway 10.0.0.1 --count x",
            "lab --gateway 10.0.0.1 --driver route",
            "",
        ],
        expect![[r#"
            $ topo veth-pair lab --gateway 10.0.0.1 --subnt x
            error: unexpected argument '--subnt' found

              tip: a similar argument exists: '--subnet'

            Usage: topo veth-pair --gateway <IP> --subnet <CIDR> <NAME> [TARGET] [FILE]...

            For more information, try '--help'.
            $ topo veth-pair lab --gateway
            error: a value is required for '--gateway <IP>' but none was supplied

            For more information, try '--help'.
            $ topo veth-pair lab --gateway 10.0.0.1 --subnet 10.0.0.5/24
            error: invalid value '10.0.0.5/24' for '--subnet <CIDR>': host bits are set; did you mean `10.0.0.0/24`?

            For more information, try '--help'.
            $ topo veth-pair lab --gateway 10.0.0.1 --port 70000
            error: invalid value '70000' for '--port <PORT>': not a port, which is a number from 1 to 65535

            For more information, try '--help'.
            $ topo veth-pair lab --gateway 10.0.0.1 --count x
            error: invalid value 'x' for '--count <N>': not a whole number

            For more information, try '--help'.
            $ topo veth-pair lab --gateway 10.0.0.1 --driver route
            error: invalid value 'route' for '--driver <NAME>'
              [possible values: bridge, routed, isolated]

              tip: a similar value exists: 'routed'

            For more information, try '--help'.
            $ topo veth-pair
            error: the following required arguments were not provided:
              --gateway <IP>
              <NAME>

            Usage: topo veth-pair --gateway <IP> <NAME> [TARGET] [FILE]...

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn help_is_the_header() {
    refused(
        &["--help"],
        expect![[r#"
            $ topo veth-pair --help
            Two netns joined by a veth pair, with addresses, default routes and a ping.

            It replaces:

                ip link add eth0 netns a type veth peer name eth0 netns b
                iptables -A FORWARD -j ACCEPT

            Usage: topo veth-pair [OPTIONS] --gateway <IP> <NAME> [TARGET] [FILE]...

            Arguments:
              <NAME>
                      the first positional, required

              [TARGET]
                      an optional positional

                      [default: x]

              [FILE]...
                      the rest of the positionals

            Options:
                  --subnet <CIDR>
                      where the addresses come from

                      [default: 172.18.0.0/24]

                  --count <N>
                      how many echoes to send

                      [default: 3]

              -v, --verbose
                      a flag

                  --no-ping
                      another, e.g. for [::1]

              -l, --label <K=V>
                      may be given more than once

                  --driver <NAME>
                      one of a list and a continuation line of its description

                      [default: bridge]
                      [possible values: bridge, routed, isolated]

                  --gateway <IP>
                      required option

                  --port <PORT>
                      where it listens

              -h, --help
                      Print help (see a summary with '-h')

            Examples:
              topo veth-pair lab --gateway 10.0.0.1
        "#]],
    );
    let short = run(&parsed(&["   --count N  how many  [default: 3]"]), "-h").unwrap_err().to_string();
    expect![[r#"
        A lab.

        Usage: topo veth-pair [OPTIONS]

        Options:
              --count <N>  how many [default: 3]
          -h, --help       Print help
    "#]]
    .assert_eq(&short);
}

#[test]
fn a_malformed_declaration_is_an_error() {
    wrong(
        &[
            "   --count N how many",
            "   --count    N    how many",
            "   NAME  the first|   -c N  how many",
            "   --no_ping  do not ping",
        ],
        expect![[r#"
            line 4: `--count N how many` is not a declaration
              hint: a declaration is `NAME`, `[NAME]`, `NAME...`, `[NAME...]`, `--flag`, `-f, --flag` or `--option VALUE`, then two spaces and its description
            line 4: `--count` and its placeholder `N` are more than one space apart
              hint: a declaration is `NAME`, `[NAME]`, `NAME...`, `[NAME...]`, `--flag`, `-f, --flag` or `--option VALUE`, then two spaces and its description
            line 5: `-c N` is not a declaration
              hint: a declaration is `NAME`, `[NAME]`, `NAME...`, `[NAME...]`, `--flag`, `-f, --flag` or `--option VALUE`, then two spaces and its description
            line 4: `--no_ping` is not a declaration
              hint: an option is named by words of a-z and 0-9 with `-` between
        "#]],
    );
    let others = "-c|--count=N|--count n|--count [N]|--verbose...|<NAME>|[FILE]...|name|-vv, --verbose|-v --verbose|\
        -v, NAME|--|-|[]|...|K=V...|-é, --verbose|--count  N|--label  K=V...  pairs";
    for text in others.split('|') {
        let read = Header::parse(&script(&["   NAME  the first", &format!("   {text}")]));
        assert!(read.is_err_and(|error| error.line == 5), "{text}");
    }
}

#[test]
fn a_name_that_cannot_be_used_is_an_error() {
    wrong(
        &[
            "   NAME  first|   --rm  take it down",
            "   -h, --host IP  where",
            "   --with FILE  another",
            "   PRINT  a word",
            "   FILE  in|   --count N  how many|   --file FILE  out",
            "   -c, --count N  how many|   -c, --color  colours",
        ],
        expect![[r#"
            line 5: `--rm` takes an option that is topo's own
              hint: choose another name than `--rm`, `--keep`, `--sandbox`, `--trace`, `--json`, `--name`, `--help` and `-h`
            line 4: `-h, --host IP` takes an option that is topo's own
              hint: choose another name than `--rm`, `--keep`, `--sandbox`, `--trace`, `--json`, `--name`, `--help` and `-h`
            line 4: `with` is a reserved word of the language, so a script could not use it
              hint: choose another name
            line 4: `print` is a reserved word of the language, so a script could not use it
              hint: choose another name
            line 6: `--file` has the same name as `FILE` of line 4
              hint: the script knows both as `file`
            line 5: `-c` is the short form of `--count` of line 4 already
              hint: choose another letter
        "#]],
    );
}

#[test]
fn positionals_out_of_order_are_an_error() {
    wrong(
        &["   [FROM]  one|   --count N  how many|   TO  two", "   FILE...  the files|   [TO]  the last"],
        expect![[r#"
            line 6: `TO` is required, but follows the optional `[FROM]`
              hint: declare the required positionals first
            line 5: `TO` follows `FILE...`, which takes all the rest
              hint: declare the repeated positional last
        "#]],
    );
}

#[test]
fn a_wrong_note_is_an_error() {
    wrong(
        &[
            "   --count N  how many  [defualt: 3]",
            "   --count N  how many  [default:]",
            "   --count N  how many  [default: 3] [default: 4]",
            "   --count N  how many [default: 3] echoes",
            "   --count N  how many|              to send  [default: many]",
            "   --subnet CIDR  from where  [default: 10.0.0.5/24]",
            "   --count N  how many  [possible: 1, two]",
            "   --color WHEN  when  [possible: always, , never]",
            "   --color WHEN  when  [possible: always, never] [default: auto]",
            "   --count N  how many  [default: 3] [required]",
            "   NAME  the first  [default: x]",
            "   [NAME]  the first  [required]",
            "   --verbose  a flag  [default: true]",
        ],
        expect![[r#"
            line 4: `[defualt: 3]` is unknown, lacks its value, or is given twice
              hint: known are `[default: VALUE]`, `[possible: A, B]` and `[required]`, each once
            line 4: `[default]` is unknown, lacks its value, or is given twice
              hint: known are `[default: VALUE]`, `[possible: A, B]` and `[required]`, each once
            line 4: `[default: 3]` is unknown, lacks its value, or is given twice
              hint: known are `[default: VALUE]`, `[possible: A, B]` and `[required]`, each once
            line 4: `[default:` does not end its line
              hint: a note stands whole at the end of a line
            line 5: `many` of `--count` is not of the type N: not a whole number
              hint: the placeholder word is the type of an argument's values
            line 4: `10.0.0.5/24` of `--subnet` is not of the type CIDR: host bits are set; did you mean `10.0.0.0/24`?
              hint: the placeholder word is the type of an argument's values
            line 4: `two` of `--count` is not of the type N: not a whole number
              hint: the placeholder word is the type of an argument's values
            line 4: a possible value of `--color` is empty or listed twice
              hint: known are `[default: VALUE]`, `[possible: A, B]` and `[required]`, each once
            line 4: the default `auto` of `--color` is not one of its possible values
              hint: possible are: always, never
            line 4: `--count` is required, so its default would never be used
              hint: remove the default, or make it optional
            line 4: `NAME` is required, so its default would never be used
              hint: remove the default, or make it optional
            line 4: `[required]` on the positional `NAME`
              hint: a positional is required unless it stands in brackets
            line 4: `--verbose` is a flag, which has no `[default]`
              hint: an option has a placeholder: `--count N`
        "#]],
    );
    let header = parsed(&["   --to WHERE  such as [::1]:80 [1]  [default: [::1]:80]"]);
    assert_eq!(header.arguments[0].default.as_deref(), Some("[::1]:80"));
    assert_eq!(header.arguments[0].help, "such as [::1]:80 [1]");
}

#[test]
fn a_line_that_fits_nowhere_is_an_error() {
    wrong(
        &[
            "   -v, --verbose  a flag|       --count N  how many",
            "   --verbose|       a flag",
            "   --verbose  a flag| Examples:",
            "   --verbose  a flag| \t--count N  how many",
            "|   --verbose  a flag",
            "   --verbose  a flag||   --count N  how many",
            "   NAME  the first|| Options:||   --count N  how many",
        ],
        expect![[r#"
            line 5: `--count N  how many` is neither a declaration nor part of a description
              hint: declarations are indented by 2 spaces, a description starts on the line of its declaration and goes on below its first word, and an empty `//!` line ends the block
            line 5: `a flag` is neither a declaration nor part of a description
              hint: declarations are indented by 2 spaces, a description starts on the line of its declaration and goes on below its first word, and an empty `//!` line ends the block
            line 5: `Examples:` is neither a declaration nor part of a description
              hint: declarations are indented by 2 spaces, a description starts on the line of its declaration and goes on below its first word, and an empty `//!` line ends the block
            line 5: a tab among the arguments
              hint: align them with spaces
            line 3: no argument is declared below `Arguments:`
              hint: declare one on the next line, or remove the heading; an empty line ends the block
            line 6: `--count N  how many` stands outside of the arguments: an empty line ended them
              hint: remove the empty line; text behind the arguments starts without indentation
            line 6: `Options:` declares nothing
              hint: all arguments are declared in one block below `Arguments:`
        "#]],
    );
    expect![[r#"
        line 3: the header goes on after it ended
          hint: write an empty line inside of the header as `//!`
    "#]]
    .assert_eq(&error("//! A lab.\n\n//! Arguments:\n//!   NAME  the first\n"));
}

/// Lines that are nearly headers, so that random text reaches every branch.
fn header_line() -> impl Strategy<Value = String> {
    let pieces = "//!| |  |   |Arguments:|NAME|[FILE...]|TO...|--count N|-v, --verbose|--|-|\t|[default: 3]|[possible: a, b]|\
        [required]|[|]|K=V|é|[x:|...|\u{a0}|\r";
    let piece = prop::sample::select(pieces.split('|').collect::<Vec<_>>());
    prop_oneof![
        4 => prop::collection::vec(piece, 0..7).prop_map(|pieces| format!("//!   {}", pieces.concat())),
        1 => Just("//! Arguments:".to_owned()),
        1 => any::<String>(),
    ]
}

proptest! {
    /// Whatever is read makes a command that clap accepts (it panics where arguments contradict each other).
    #[test]
    fn no_text_panics(lines in prop::collection::vec(header_line(), 0..8), text in any::<String>()) {
        for source in [text, lines.join("\n"), format!("//! Arguments:\n{}", lines.join("\n"))] {
            if let Ok(header) = Header::parse(&source) {
                header.command("topo x").debug_assert();
                let _ = run(&header, "--count 1 a b").map(|values| assert_eq!(values.len(), header.arguments.len()));
            }
        }
    }

    #[test]
    fn no_declaration_is_lost(
        names in prop::collection::btree_set("x[a-z0-9]{0,8}(-[a-z0-9]{1,4})?", 1..6),
        forms in prop::collection::vec((0..5_usize, 2..30_usize, "[a-z]{1,8}( [a-z]{1,8}){0,3}", any::<bool>()), 6),
        indent in 1..6_usize,
    ) {
        let mut lines = Vec::new();
        for (name, (form, gap, help, goes_on)) in names.iter().zip(&forms) {
            let declaration = match form {
                0 => format!("[{}]", name.to_uppercase()),
                1 => format!("--{name}"),
                2 => format!("--{name} N"),
                3 => format!("--{name} K=V..."),
                _ => format!("--{name} WORD"),
            };
            let column = declaration.len() + gap;
            lines.push(format!(" {:indent$}{declaration:column$}{help}", ""));
            lines.extend(goes_on.then(|| format!(" {:1$}{help}", "", indent + column)));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let header = parsed(&lines);
        let found: Vec<_> = header.arguments.iter().map(|argument| argument.name.replace('_', "-")).collect();
        prop_assert_eq!(found, names.iter().cloned().collect::<Vec<_>>());
        for (argument, (_, _, help, goes_on)) in header.arguments.iter().zip(&forms) {
            prop_assert_eq!(&argument.help, &if *goes_on { format!("{help} {help}") } else { help.clone() });
        }
        header.command("topo x").debug_assert();
    }
}
