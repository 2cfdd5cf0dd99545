use super::*;
use crate::script::Dirs;

fn variable_of(name: &str, kind: &str, netns: Option<&str>) -> Variable {
    Variable { name: name.into(), kind: kind.into(), keys: Vec::new(), netns: netns.map(String::from) }
}

/// A lab of h1 (eth0, up0) and h2 (eth1), with variables.
fn known() -> Known {
    Known {
        vocabulary: Arc::new(Vocabulary::collect(&Dirs::default())),
        variables: vec![
            variable_of("h1", "Netns", Some("h1")),
            variable_of("host", "Netns", Some("host")),
            variable_of("br", "Dev", Some("host")),
            variable_of("text", "string", None),
            Variable { keys: vec!["code".into(), "odd key".into()], ..variable_of("ran", "map", None) },
        ],
        functions: vec!["mine".into()],
        imported: vec!["network".into()],
        devs: BTreeMap::from([
            ("h1".into(), vec!["eth0".into(), "up0".into()]),
            ("h2".into(), vec!["eth1".into()]),
            ("host".into(), vec!["br0".into()]),
        ]),
    }
}

/// Completes the text, and shows the results behind what stays of it.
fn completed(text: &str) -> String {
    let (start, found) = complete(&known(), text);
    format!("{}|{}", &text[..start], found.join(" "))
}

#[track_caller]
fn has(text: &str, wanted: &[&str], unwanted: &[&str]) {
    let (_, found) = complete(&known(), text);
    for word in wanted {
        assert!(found.iter().any(|found| found == word), "`{text}` lacks `{word}`: {found:?}");
    }
    for word in unwanted {
        assert!(!found.iter().any(|found| found == word), "`{text}` has `{word}`: {found:?}");
    }
}

#[test]
fn functions_variables_and_words() {
    has(
        "",
        &["netns(", "bridge(", "h1", "mine(", "network::", "let", "true", "print("],
        &["ping(", "addr(", "name", "up0"],
    );
    assert_eq!(completed("let b = bri"), "let b = |bridge(");
    assert_eq!(completed("if ho"), "if |host host_only(");
    // Behind a range, not behind a dot.
    has("for i in 0..h", &["h1", "host"], &["host_only()"]);
    assert_eq!(completed("// bri"), "// bri|");
    assert_eq!(completed("/* bri"), "/* bri|");
    assert_eq!(completed("12"), "12|");
}

#[test]
fn members_by_the_type_before_the_dot() {
    assert_eq!(completed("h1.pi"), "h1.|ping(");
    has("h1.", &["ping(", "exec(", "devs()", "name", "route("], &["addr(", "mac", "len"]);
    has("br.", &["addr(", "mac", "attach(", "ports()"], &["ping(", "devs()"]);
    has("h1[\"eth0\"].", &["addr(", "mac"], &["ping("]);
    has("netns(\"h3\").", &["ping(", "exec("], &["addr("]);
    has("h1[\"eth0\"].addr(\"10.0.0.1/24\").", &["addr(", "mac"], &["ping("]);
    has("text.", &["len", "to_upper()", "split("], &["ping(", "addr("]);
    has("`a`.", &["len"], &["ping("]);
    has("[1, 2].", &["push(", "len"], &["ping("]);
    has("net(\"10.0.0.0/24\").", &["host(", "contains("], &["ping("]);
    // Its keys, as far as they can be written so.
    has("ran.", &["code", "keys()"], &["odd key", "ping("]);
    // Of what is not known, what handles have.
    has("unknown.", &["ping(", "addr("], &["push(", "netns_get("]);
}

#[test]
fn options_of_the_call() {
    assert_eq!(completed("h1.ping(\"10.0.0.1\", #{ co"), "h1.ping(\"10.0.0.1\", #{ |count: ");
    has("h1.ping(\"10.0.0.1\", #{ count: 3, ", &["deadline: ", "size: "], &["count: ", "mtu: "]);
    has("veth(h1[\"eth0\"], br, #{", &["mtu: "], &["count: "]);
    // A value is no key, and a map of nobody has no options.
    has("h1.ping(\"10.0.0.1\", #{ count: ", &["h1"], &["size: "]);
    has("let m = #{ ", &["h1"], &["mtu: "]);
    has("if h1.ping(x) { ", &["h1", "netns("], &["count: "]);
}

#[test]
fn modules_and_what_is_in_strings() {
    assert_eq!(completed("network::con"), "network::|connect(");
    has("import \"", &["lan", "network"], &["h1", "eth0"]);
    assert_eq!(completed("h1[\""), "h1[\"|eth0 up0");
    assert_eq!(completed("h1[\"e"), "h1[\"|eth0");
    has("netns_get(\"", &["h1", "h2", "eth0", "br0"], &["netns("]);
    has("unknown[\"", &["eth0", "eth1", "br0"], &["h1"]);
    let (start, found) = complete(&known(), "import \"./src/li");
    assert_eq!((start, found), ("import \"./src/".len(), vec!["lib.rs".to_string()]));
}

#[test]
fn commands_and_their_arguments() {
    assert_eq!(completed(":u"), "|:undo");
    assert_eq!(completed(":trace o"), ":trace |off on");
    assert_eq!(completed(":sh h"), ":sh |h1 h2 host");
    assert_eq!(completed(":load src/li"), ":load src/|lib.rs");
    assert_eq!(completed(":help vet"), ":help |veth");
    assert_eq!(completed(":undo "), ":undo |");
    assert_eq!(completed(":nonsense x"), ":nonsense |");
}

#[test]
fn hints_show_how_it_is_called() {
    let hinted = |text: &str| hint(&known(), text).unwrap_or_default();
    assert_eq!(hinted("netns("), "  netns(name: string) -> Netns");
    assert_eq!(hinted("h1.ping("), "  netns.ping(to: any) -> map");
    // The form that has room for what is typed.
    assert_eq!(hinted("h1.ping(\"10.0.0.1\", #{ count: 3 "), "  netns.ping(to: any, options: map) -> map");
    assert_eq!(hinted("check(\"x\", h1.ping("), "  netns.ping(to: any) -> map");
    assert!(
        hinted("network::connect(").starts_with("  network::connect(name, target"),
        "{}",
        hinted("network::connect(")
    );
    assert_eq!(hinted(":undo"), "  Takes the last statement back, or the last N: its steps and its variables.");
    for nothing in ["h1", "netns(\"a\")", "if (", "unknown(", "// netns(", "fn f() { "] {
        assert_eq!(hinted(nothing), "", "{nothing:?}");
    }
}

proptest::proptest! {
    /// Whatever is typed, what could stand there begins within it, at a character.
    #[test]
    fn any_text_is_completed(text in "[a-z1\"`.:#{}()\\[\\], /é\n]{0,40}") {
        let known = Known::default();
        let (start, _) = complete(&known, &text);
        assert!(text.is_char_boundary(start));
        hint(&known, &text);
    }
}

#[test]
fn a_lab_of_a_thousand_is_completed() {
    let mut known = known();
    known.devs = (0..1000).map(|n| (format!("h{n}"), vec!["eth0".to_string()])).collect();
    let (_, found) = complete(&known, "netns_get(\"h99");
    assert_eq!(found.len(), 11);
}
