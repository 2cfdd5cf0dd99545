//! The sections of a dump, from what `ip`, `tc`, `nft`, `iptables-save` and `grep` print.
//!
//! What the kernel changes by itself is left out here, each time with the reason: counters and timers; what follows later
//! from what is compared anyway (carrier, IPv6 link-local addresses and their routes); what use brings and time takes away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// One section of a dump: each thing under the name by which a person knows it.
pub(super) type Section = BTreeMap<String, Value>;

/// Adds a thing; two of one name are told apart by their number.
pub(super) fn add(section: &mut Section, name: String, value: Value) {
    let mut unique = name.clone();
    let mut number = 1;
    while section.contains_key(&unique) {
        number += 1;
        unique = format!("{name} ({number})");
    }
    section.insert(unique, value);
}

/// Builds the sections of `ip -d -j -batch`: links, addresses, routes, next hops, neighbours, their proxies, IPv4 rules.
pub(super) fn network(json: &str) -> Vec<(&'static str, Section)> {
    let tables: Vec<Vec<Value>> = serde_json::Deserializer::from_str(json)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|err| panic!("`ip -j` printed what isn't JSON: {err}:\n{json}"));
    let [links, addresses, routes, hops, neighbours, proxies, rules] = tables.as_slice() else {
        panic!("`ip -j -batch` answered {} of 7 questions:\n{json}", tables.len());
    };
    vec![
        ("links", section(links, link)),
        ("addresses", addresses.iter().flat_map(addresses_of).collect()),
        ("routes", section(routes, route)),
        ("next hops", section(hops, |hop| Some((words(hop, &["id", "gateway", "dev"]), hop.clone())))),
        ("neighbours", section(neighbours, neighbour)),
        ("neighbour proxies", section(proxies, |entry| Some((words(entry, &["dst", "dev"]), entry.clone())))),
        ("IPv4 rules", section(rules, rule)),
    ]
}

pub(super) fn ipv6_rules(json: &str) -> Section {
    section(&array(json), rule)
}

pub(super) fn qdiscs(json: &str) -> Section {
    section(&array(json), |qdisc| {
        let mut qdisc = qdisc.clone();
        remove(&mut qdisc, &["refcnt"]);
        Some((words(&qdisc, &["dev", "kind", "handle", "parent"]), qdisc))
    })
}

fn array(json: &str) -> Vec<Value> {
    match json.trim() {
        "" => Vec::new(),
        json => serde_json::from_str(json).unwrap_or_else(|err| panic!("expected a JSON array: {err}:\n{json}")),
    }
}

fn section(values: &[Value], read: impl Fn(&Value) -> Option<(String, Value)>) -> Section {
    let mut section = Section::new();
    // iproute2 prints an empty object for each thing that it leaves out.
    for (name, value) in
        values.iter().filter(|value| value.as_object().is_some_and(|map| !map.is_empty())).filter_map(read)
    {
        add(&mut section, name, value);
    }
    section
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Joins the given fields, where present, to a name.
fn words(value: &Value, keys: &[&str]) -> String {
    let word = |key: &&str| match value.get(*key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    keys.iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

fn remove(value: &mut Value, keys: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

fn link(link: &Value) -> Option<(String, Value)> {
    let mut link = link.clone();
    // Carrier, and all that follows from it, comes some milliseconds after the cause.
    remove(&mut link, &["operstate"]);
    if let Some(Value::Array(flags)) = link.get_mut("flags") {
        let follows = ["LOWER_UP", "NO-CARRIER", "RUNNING", "DORMANT", "M-DOWN"];
        flags.retain(|flag| flag.as_str().is_none_or(|flag| !follows.contains(&flag)));
    }
    for kind in ["info_data", "info_slave_data"] {
        if let Some(Value::Object(data)) = link.get_mut("linkinfo").and_then(|info| info.get_mut(kind)) {
            let follows =
                ["state", "topology_change", "topology_change_detected", "topology_change_ack", "config_pending"];
            data.retain(|key, _| !key.ends_with("_timer") && !follows.contains(&key.as_str()));
        }
    }
    Some((text(&link, "ifname").to_owned(), link))
}

fn addresses_of(link: &Value) -> Vec<(String, Value)> {
    let dev = text(link, "ifname");
    let all = link.get("addr_info").and_then(Value::as_array).into_iter().flatten();
    all.filter(|address| !made_by_kernel(address))
        .map(|address| {
            let mut address = address.clone();
            // Duplicate address detection takes a second or two.
            remove(&mut address, &["tentative", "optimistic", "dadfailed"]);
            for key in ["valid_life_time", "preferred_life_time"] {
                if address.get(key).is_some_and(|left| left.as_u64() != Some(u64::from(u32::MAX))) {
                    address[key] = Value::from("limited");
                }
            }
            let name = format!("{dev} {}/{}", text(&address, "local"), words(&address, &["prefixlen", "address"]));
            (name, address)
        })
        .collect()
}

/// Tells whether this is the link-local address that the kernel makes, some time after a link is up, from its MAC.
fn made_by_kernel(address: &Value) -> bool {
    let local: Option<std::net::Ipv6Addr> = text(address, "local").parse().ok();
    let from_mac = local.is_some_and(|local| {
        let octets = local.octets();
        octets.starts_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]) && octets.get(11..13) == Some(&[0xff, 0xfe])
    });
    from_mac || text(address, "protocol") == "kernel_ll"
}

fn route(route: &Value) -> Option<(String, Value)> {
    let mut route = route.clone();
    let destination = text(&route, "dst");
    if text(&route, "protocol") == "kernel" && (destination.contains(':') || destination == "default") {
        // The addresses, which are compared, bring these when they have passed duplicate address detection, and the links
        // when they have carrier.
        let local = text(&route, "table") == "local";
        if local && matches!(text(&route, "type"), "local" | "anycast" | "multicast") || destination == "fe80::/64" {
            return None;
        }
    }
    remove(&mut route, &["expires", "used", "age", "users", "cache"]);
    if let Some(Value::Array(flags)) = route.get_mut("flags") {
        flags.retain(|flag| !matches!(flag.as_str(), Some("linkdown" | "dead"))); // Follows from carrier.
    }
    let mut name = words(&route, &["type", "dst"]);
    for key in ["gateway", "dev", "table", "protocol", "metric"] {
        if route.get(key).is_some() {
            let word = if key == "gateway" { "via" } else { key };
            name = format!("{name} {word} {}", words(&route, &[key]));
        }
    }
    Some((name, route))
}

fn neighbour(neighbour: &Value) -> Option<(String, Value)> {
    let state = |wanted: &str| {
        neighbour
            .get("state")
            .and_then(Value::as_array)
            .is_some_and(|states| states.iter().any(|state| state == wanted))
    };
    let flag = |wanted: &str| neighbour.get(wanted).is_some();
    let name = words(neighbour, &["dst", "dev", "lladdr"]);
    if flag("managed") || flag("extern_learn") {
        // Kept by someone, but resolved by the kernel: all but the entry itself changes.
        return Some((words(neighbour, &["dst", "dev"]), Value::from("kept")));
    }
    // NOARP is also how the kernel notes, on first use, multicast, broadcast and loopback destinations.
    let group = u8::from_str_radix(text(neighbour, "lladdr").get(..2).unwrap_or("ff"), 16).unwrap_or(0xff) & 1 == 1;
    let noarp = state("NOARP") && !group && text(neighbour, "dev") != "lo";
    let mut entry = neighbour.clone();
    remove(&mut entry, &["used", "confirmed", "updated", "probes", "refcnt"]);
    (state("PERMANENT") || noarp).then_some((name, entry))
}

fn rule(rule: &Value) -> Option<(String, Value)> {
    Some((
        words(rule, &["priority", "not", "src", "srclen", "dst", "iif", "oif", "fwmark", "table", "action"]),
        rule.clone(),
    ))
}

/// Reads `nft -s list ruleset`: each line under its table and chain.
pub(super) fn nft(listing: &str) -> Section {
    let mut section = Section::new();
    let mut within: Vec<String> = Vec::new();
    let mut begun = String::new();
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // The elements of a set may take many lines.
        begun = if begun.is_empty() { line.to_owned() } else { format!("{begun} {line}") };
        let count = |brace: char| begun.matches(brace).count();
        if !begun.ends_with('{') && count('{') > count('}') {
            continue;
        }
        let whole = std::mem::take(&mut begun);
        if whole == "}" {
            within.pop();
            continue;
        }
        let (header, opens) = whole.strip_suffix('{').map_or((whole.as_str(), false), |header| (header.trim(), true));
        let name = within.iter().map(String::as_str).chain([header]).collect::<Vec<_>>().join(" > ");
        add(&mut section, name, Value::Null);
        if opens {
            within.push(header.to_owned());
        }
    }
    section
}

/// Reads `iptables-save`: each line under its table.
pub(super) fn iptables(listing: &str) -> Section {
    let mut section = Section::new();
    let mut table = "";
    for line in listing.lines() {
        if line.starts_with('*') {
            table = line;
        }
        if !line.starts_with('#') && !line.is_empty() && line != "COMMIT" {
            // `:INPUT ACCEPT [12:3456]` counts packets.
            let line = if line.starts_with(':') { line.split(" [").next().unwrap_or(line) } else { line };
            add(&mut section, format!("{table} {line}"), Value::Null);
        }
    }
    section
}

/// Reads `grep -rH '' /proc/sys/net`: the lines of each file.
pub(super) fn sysctls(listing: &str) -> Section {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, line) in listing.lines().filter_map(|line| line.split_once(':')) {
        values.entry(path.trim_start_matches("/proc/sys/")).or_default().push(line);
    }
    // The first counts connections, the second is a random number made when a server first asks for it.
    let volatile = ["net/netfilter/nf_conntrack_count", "net/ipv4/tcp_fastopen_key"];
    values.retain(|path, _| !volatile.contains(path));
    values.into_iter().map(|(path, lines)| (path.to_owned(), Value::from(lines.join("\n")))).collect()
}

/// Reads a `mountinfo`: what is mounted where and how, without the numbers that the kernel gave.
pub(super) fn mounts(mountinfo: &str) -> Section {
    let mut section = Section::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let words: Vec<&str> = mount.split(' ').collect();
        let [_, _, _, root, point, options, tags @ ..] = words.as_slice() else { continue };
        let tags = tags.iter().map(|tag| tag.split(':').next().unwrap_or(tag)).collect::<Vec<_>>().join(" ");
        let value = json!({ "root": root, "filesystem": filesystem, "options": options, "propagation": tags });
        add(&mut section, (*point).to_owned(), value);
    }
    section
}
