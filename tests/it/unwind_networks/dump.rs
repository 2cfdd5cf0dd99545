//! What a world and its containers look like, with what differs between two makings of the same thing left out.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::world::{Snapshot, World};

/// The full dump of a world, and of what is inside of its containers, but for numbers that the kernel or the clock gives,
/// and for which addresses of the networks' pools were next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dump {
    world: Snapshot,
    inside: Vec<String>,
}

/// Asks for all in the containers that is not the kernel's own: link-local addresses come some time after the link.
const INSIDE: &str = r#"
for ns in $(ip netns list | cut -d' ' -f1 | sort); do
    ip -n $ns -o link show | awk -F'[ @:]+' '{ print $2 }' | sed "s/^/$ns link /"
    ip -n $ns -o addr show scope global | awk '{ print $2, $3, $4 }' | sed "s/^/$ns addr /"
    ip -n $ns route show table all | grep -v -e '^broadcast' -e '^multicast' -e '^anycast' -e fe80:: | sed "s/^/$ns route /" || :
    ip -n $ns -6 route show default | sed "s/^/$ns route6 /"
    ip netns exec $ns grep -rsH '' /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding | sed "s/^/$ns /" || :
    ip netns exec $ns nft -s list ruleset | sed "s/^/$ns nft /"
done"#;

impl Dump {
    pub(crate) fn take(w: &World) -> Dump {
        let inside = w.run_as_root(INSIDE).ok().stdout;
        Dump { world: w.snapshot().mapped(thing), inside: inside.lines().map(masked).collect() }
    }

    /// Leaves out what is noted of the labs, and the numbers of namespaces: what two labs of the same kind never share.
    pub(crate) fn of_networks(self) -> Dump {
        let is_record = |name: &str| name.contains("/state/labs/");
        let thing = |name: &str, value: &Value| if is_record(name) { None } else { unnumbered_thing(name, value) };
        Dump { world: self.world.mapped(thing), inside: self.inside }
    }

    /// Describes what became of `self` in `after`; empty if nothing did.
    pub(crate) fn diff(&self, after: &Dump) -> String {
        let mut text = self.world.diff(&after.world);
        let mut side = |sign: char, these: &[String], those: &[String]| {
            let more = these.iter().filter(|line| !those.contains(line));
            more.for_each(|line| text.push_str(&format!("  {sign} inside: {line}\n")));
        };
        side('-', &self.inside, &after.inside);
        side('+', &after.inside, &self.inside);
        text
    }
}

fn thing(name: &str, value: &Value) -> Option<(String, Value)> {
    // What a kill left of the record of a lab that lives: its next write takes it over, and it goes with the lab. The names of
    // the lab's nodes are written down for its commands when one asks, and again when they have changed.
    let of_lab = |file: &str| name.contains("/state/labs/") && name.ends_with(file);
    let derived = ["/lab.json.tmp", "/etc", "/etc/hosts"].into_iter().any(of_lab);
    (!derived).then(|| (masked(name), masked_value("", value)))
}

/// Leaves out the numbers of namespaces, which a namespace that was made again does not share.
pub(crate) fn unnumbered_thing(name: &str, value: &Value) -> Option<(String, Value)> {
    Some((unnumbered(name), unnumbered_value(value)))
}

/// Leaves out the number of a namespace, `net:[4026532319]`.
fn unnumbered(text: &str) -> String {
    let Some((before, rest)) = text.split_once("net:[") else { return text.to_owned() };
    format!("{before}net:[{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

fn unnumbered_value(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), unnumbered_value(value))).collect(),
        Value::String(text) => Value::from(unnumbered(text)),
        other => other.clone(),
    }
}

/// Names of numbers that the kernel and the clock give, of the place in a pool where the search goes on, and of the sums of all that.
const FICKLE: [&str; 12] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "creator",
    "created",
    "next",
    "lap",
    "index",
    "peer_index",
    "no",
    "order",
    "sum",
];

fn masked_value(name: &str, value: &Value) -> Value {
    match value {
        _ if FICKLE.contains(&name) => Value::Null,
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), masked_value(key, value))).collect(),
        Value::Array(list) => list.iter().map(|value| masked_value("", value)).collect(),
        // Seconds since 1970.
        Value::Number(number) if number.as_u64().is_some_and(|number| number > 1_000_000_000) => Value::Null,
        Value::String(text) if name == "content" => match serde_json::from_str::<Value>(without_sum(text)) {
            Ok(inner) => masked_value("", &inner),
            // A journal has a line for each step, with all those numbers; what it is good for is tried.
            Err(_) if text.starts_with("journal id=") || text.ends_with(" bytes") => Value::from("a journal"),
            Err(_) => Value::from(masked(text)),
        },
        Value::String(text) => Value::from(masked(text)),
        other => other.clone(),
    }
}

/// Returns the JSON of a file that begins with its check sum.
fn without_sum(text: &str) -> &str {
    text.split_once(' ').filter(|(sum, json)| sum.len() == 16 && json.starts_with('{')).map_or(text, |(_, json)| json)
}

/// Replaces hardware addresses, and those that a pool of the tests hands out, by what they are.
fn masked(text: &str) -> String {
    let text = without_numbers(text);
    let text = text.as_str();
    let is_address = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_address(c)).unwrap_or(rest.len());
        out.push_str(&masked_word(&rest[..end]));
        let begin = rest[end..].find(is_address).map_or(rest.len(), |at| end + at);
        out.push_str(&rest[end..begin]);
        rest = &rest[begin..];
    }
    out
}

/// Leaves out the number at the end of a comment of ours, `"topo:HASH:LAB:NUMBER"`, which counts what the run has made.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("topo:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mark, rest) = part.split_at(part.find(['"', '\\']).unwrap_or(part.len()));
        let digits =
            |(_, number): &(&str, &str)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let mark = mark.rsplit_once(':').filter(digits).map_or(mark, |(mark, _)| mark);
        out.push_str(&format!("topo:{mark}{rest}"));
    }
    out
}

fn masked_word(word: &str) -> String {
    // A bridge's id has its priority before it.
    let mac: Vec<&str> = word.rsplit('.').next().unwrap_or_default().split(':').collect();
    if mac.len() == 6 && mac.iter().all(|part| matches!(part.len(), 1 | 2)) {
        return "MAC".to_owned();
    }
    if let Ok(ip) = word.parse()
        && is_handed_out(ip)
    {
        return "ADDRESS".to_owned();
    }
    match word.parse::<SocketAddr>() {
        Ok(socket) if is_handed_out(socket.ip()) => format!("ADDRESS:{}", socket.port()),
        _ => word.to_owned(),
    }
}

fn is_handed_out(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[10, 5, 0]) && !matches!(ip.octets()[3], 0 | 1 | 255),
        IpAddr::V6(ip) => ip.segments().starts_with(&[0xfd00, 5, 0, 0]) && !matches!(ip.segments()[7], 0 | 1),
    }
}
