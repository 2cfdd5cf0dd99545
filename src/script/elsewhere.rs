//! Words of other tools and languages, and what to type here: for errors, `topo doc` and mistyped commands.

/// Words that mean one thing, the function or type that does it here, and what to type.
pub struct Foreign {
    /// The words, with a space between them, in small letters and without underscores.
    words: &'static str,
    /// What `topo doc` explains instead; empty where nothing does.
    here: &'static str,
    /// What to type.
    hint: &'static str,
}

const FOREIGN: &[Foreign] = &[
    // Leaving, help, looking around.
    foreign("exit quit logout bye", "exit", "`exit(0)` ends a script; at the prompt, `:quit` or Ctrl-D leaves"),
    foreign("help man usage", "", "`topo doc NAME` explains a function; at the prompt, `:help` lists the commands"),
    foreign("ls dir ps", "", "at the prompt, `:ls` shows the lab; in a shell, `topo ls` lists the labs"),
    foreign("clear cls", "", "Ctrl-L clears the screen"),
    // Other languages.
    foreign("def function func sub proc", "", "a function is written `fn name(a, b) { a + b }`"),
    foreign("none null nil undefined nan", "", "nothing is `()`"),
    foreign("var int float string auto mut", "", "`let name = value;` declares a variable"),
    foreign("echo printf puts println write", "print", "`print(value);` writes a line"),
    foreign("range xrange seq", "range", "`0..5` counts from 0 to 4: `for i in 0..5 { }`"),
    foreign("elif elsif", "", "`else if` goes on with another condition"),
    foreign("raise panic die", "throw", "`throw \"text\";` ends a script with an error"),
    // Mininet, containerlab, shell.
    foreign("pingall pingfull", "ping_all", "`ping_all([h1, h2])` pings from each host of a list to each other"),
    foreign("iperf iperf3 bandwidth speed netperf", "throughput", "`throughput(h1, h2)` measures how fast a path is"),
    foreign("cmd sh shell popen system pexec sendcmd", "exec", "`h1.exec(\"ls\")` runs a command in a netns"),
    foreign("spawn background daemon", "start", "`h1.start(\"program\")` runs a program beside the script"),
    foreign("ifconfig links interfaces intf intfs", "devs", "`h1.devs()` lists the devices of a netns"),
    foreign("addhost namespace addnamespace addnode node", "netns", "`netns(\"h1\")` makes a host"),
    foreign("addswitch switch addbridge brctl ovs", "bridge", "`bridge(\"br0\")` makes a switch"),
    foreign(
        "addlink link cable connect wire patch",
        "veth",
        "`veth(h1[\"eth0\"], h2[\"eth0\"])` plugs a cable in at both ends",
    ),
    foreign(
        "adress address addaddr setip ip ipaddr inet",
        "addr",
        "`h1[\"eth0\"].addr(\"10.0.0.1/24\")` gives a device an address",
    ),
    foreign(
        "setmac hwaddr",
        "veth",
        "`veth(h1[\"eth0\"], br, #{ mac: \"02:00:00:00:00:01\" })` makes a device with this hardware address",
    ),
    foreign(
        "addroute gateway setdefaultroute gw",
        "route",
        "`h1.route(\"default\", #{ via: \"10.0.0.254\" })` adds a route",
    ),
    foreign(
        "delay latency netem loss jitter tc qdisc limit rate",
        "shape",
        "`h1[\"eth0\"].shape(#{ rate: \"10mbit\" })` shapes what a device sends",
    ),
    foreign(
        "firewall iptables nft drop accept block",
        "filter",
        "`h1.filter(\"input\", \"drop\", #{ proto: \"tcp\", port: 22 })` drops packets",
    ),
    foreign("snat nat", "masquerade", "`host.masquerade(\"10.0.0.0/24\")` hides a network behind the host's address"),
    foreign(
        "publish portforward forward expose portmap",
        "dnat",
        "`host.dnat(#{ port: 8080, to: \"10.0.0.2:80\" })` publishes a port",
    ),
    foreign("httpserver webserver nc netcat listen", "serve", "`h1.serve(\"http\", 80)` runs a small server"),
    foreign("curl wget", "http", "`h1.http(\"http://10.0.0.2/\")` asks a web server"),
    foreign(
        "destroy delete del stop teardown",
        "remove",
        "`h1.remove()` removes a netns; `topo down LAB` removes a whole lab",
    ),
    foreign(
        "wait retry eventually",
        "check_within",
        "`check_within(\"it answers\", \"5s\", || h1.ping(\"h2\").ok)` waits until something holds",
    ),
    foreign(
        "assertequal expect verify",
        "check",
        "`check(\"it answers\", h1.ping(\"h2\").ok)` notes whether something holds",
    ),
];

const fn foreign(words: &'static str, here: &'static str, hint: &'static str) -> Foreign {
    Foreign { words, here, hint }
}

/// Commands of other tools, and the one of this.
const COMMANDS: &[(&str, &str)] = &[
    ("destroy delete remove rm stop teardown clean undeploy", "down"),
    ("up deploy start create apply build launch exe", "run"),
    ("lab labs list ps status", "ls"),
    ("inspect describe info", "show"),
    ("shell console cli prompt interactive", "repl"),
    ("enter attach ssh sh", "exec"),
    ("validate lint", "check"),
    ("man help-me explain", "doc"),
    ("prune cleanup", "gc"),
];

/// Says what to type for a word of another tool or language.
pub(super) fn hint(word: &str) -> Option<&'static str> {
    match word {
        "True" | "TRUE" => Some("write `true`"),
        "False" | "FALSE" => Some("write `false`"),
        _ => find(word).map(|foreign| foreign.hint),
    }
}

/// Returns the function that does what a word of another tool means.
pub fn here(word: &str) -> Option<&'static str> {
    find(word).map(|foreign| foreign.here).filter(|here| !here.is_empty())
}

/// Returns the command that does what one of another tool does.
pub fn command(word: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(words, _)| words.split(' ').any(|known| known == word)).map(|(_, command)| *command)
}

fn find(word: &str) -> Option<&'static Foreign> {
    let plain = word.replace('_', "").to_lowercase();
    FOREIGN.iter().find(|foreign| foreign.words.split(' ').any(|known| known == plain))
}

/// Explains a line that is written as at a shell, `h1 ping h2`, from the text before its second word and the text from there on.
pub(super) fn as_at_a_shell(before: &str, rest: &str) -> Option<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let first = before.rsplit([';', '{', '}']).next().unwrap_or(before).trim();
    let is_name = first.starts_with(|c: char| c.is_alphabetic() || c == '_') && first.chars().all(is_part);
    let line = rest.trim_end().trim_end_matches(';');
    let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
    if !is_name || word.is_empty() || !word.chars().all(is_part) {
        return None;
    }
    match (word, first) {
        ("ping", _) if !argument.is_empty() => {
            Some(format!("a function is called with brackets: `{first}.ping(\"{}\")`", argument.trim()))
        }
        (_, "iperf") => hint("iperf").map(Into::into),
        _ => Some(format!(
            "a command is run by `{first}.exec(\"{line}\")`, and a function is called with brackets: `{first}(…)`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::script::catalog;

    #[test]
    fn what_a_word_leads_to_is_there_and_the_word_is_not() {
        let entries = catalog::primitives();
        let engine = crate::script::bare();
        let names: BTreeSet<String> = catalog::names(&engine).into_iter().collect();
        for foreign in FOREIGN {
            let is_there = foreign.here.is_empty()
                || !catalog::find(&entries, foreign.here).is_empty()
                || names.contains(foreign.here)
                || ["exit", "throw"].contains(&foreign.here);
            assert!(is_there, "{}", foreign.here);
        }
        let all: Vec<&str> = FOREIGN.iter().flat_map(|foreign| foreign.words.split(' ')).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a word is there twice");
    }

    #[test]
    fn words_are_found_however_they_are_written() {
        for word in ["pingAll", "ping_all", "PINGALL"] {
            assert_eq!(here(word), Some("ping_all"), "{word}");
        }
        assert_eq!(hint("None"), Some("nothing is `()`"));
        assert_eq!(hint("True"), Some("write `true`"));
        assert_eq!(command("destroy"), Some("down"));
    }

    #[test]
    fn a_line_as_at_a_shell_is_told_from_others() {
        let told = |before, rest| as_at_a_shell(before, rest);
        assert_eq!(told("h1 ", "ping h2").as_deref(), Some("a function is called with brackets: `h1.ping(\"h2\")`"));
        assert!(told("h1 ", "ip a").is_some_and(|hint| hint.contains("`h1.exec(\"ip a\")`")));
        assert_eq!(told("let x = 5 ", "print(x)"), None);
        assert_eq!(told("a = b ", "c"), None);
    }
}
