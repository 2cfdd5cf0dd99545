//! What can be left behind on a host: listed before and after, and compared. The leak check of `topo test`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ipam::Ipam;
use crate::lab::Kernel;
use crate::net::{self, nft};
use crate::state::{Error, Key, NetnsRef, RECORDS, Result, StateDir};

/// How long what goes may take to be gone: the kernel frees a namespace, and what stood in it, some moments after its last user.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Each thing under the name by which a person knows it, with what may change of it.
type Section = BTreeMap<String, String>;

/// All that can be left behind on the host that a process sees.
///
/// Not in it are files, tc, and what processes keep in memory; what the kernel changes by itself is left out, each time with
/// the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    sections: Vec<(&'static str, Section)>,
}

impl Traces {
    /// Lists what there is now.
    pub fn now(state: &StateDir) -> Result<Traces> {
        Traces::seen_by(&mut Kernel::open().map_err(failed)?, state)
    }

    fn seen_by(kernel: &mut Kernel, state: &StateDir) -> Result<Traces> {
        let host = NetnsRef::host();
        let rtnl = kernel.rtnl(&host).map_err(failed)?;
        let dump = net::dump(&rtnl).map_err(failed)?;
        let mut sections = network(&dump);
        let netns = kernel.netns(&host).map_err(failed)?;
        sections.push(("nftables", rules(&netns).map_err(failed)?));
        let names = kernel.dir().list().map_err(failed)?;
        sections.push(("netns", names.into_iter().map(|name| (name, String::new())).collect()));
        sections.push(("sysctl", sysctls()));
        sections.push(("mount", mounts()));
        let processes = net::process::all().map_err(failed)?;
        let mut found = Section::new();
        processes.into_iter().for_each(|process| add(&mut found, process, String::new()));
        sections.push(("process", found));
        sections.push(("lab", state.names()?.into_iter().map(|name| (name, String::new())).collect()));
        sections.push(("in the store:", store(state)?));
        Ok(Traces { sections })
    }

    /// Returns what is not as it was, a line each; waits a moment for what is about to go.
    pub fn changes_since(&self, state: &StateDir) -> Result<Vec<String>> {
        let began = Instant::now();
        let mut kernel = Kernel::open().map_err(failed)?;
        loop {
            let changes = self.changes_to(&Traces::seen_by(&mut kernel, state)?);
            if changes.is_empty() || began.elapsed() > GONE_WITHIN {
                return Ok(changes);
            }
            let pause = async {
                let mut ticks = tokio::time::interval(LOOK_AGAIN);
                // The first tick comes at once.
                ticks.tick().await;
                ticks.tick().await;
                Ok(())
            };
            kernel.run(pause).map_err(failed)?;
        }
    }

    fn changes_to(&self, after: &Traces) -> Vec<String> {
        let mut lines = Vec::new();
        for ((title, was), (_, is)) in self.sections.iter().zip(&after.sections) {
            // Settings come and go with their devices.
            let may_come_and_go = *title == "sysctl";
            let left = is.iter().filter(|(name, _)| !may_come_and_go && !was.contains_key(*name));
            lines.extend(left.map(|(name, _)| format!("{title} `{name}` was left")));
            for (name, before) in was {
                match is.get(name) {
                    None if may_come_and_go => {}
                    None => lines.push(format!("{title} `{name}` is gone")),
                    Some(now) if now != before => {
                        lines.push(format!("{title} `{name}` was changed: `{before}` before, `{now}` now"));
                    }
                    Some(_) => {}
                }
            }
        }
        lines
    }
}

fn failed(source: net::Error) -> Error {
    Error::kernel("look for what was left", &source)
}

/// Adds a thing; two of one name are told apart by their number.
fn add(section: &mut Section, name: String, value: String) {
    let mut unique = name.clone();
    let mut number = 1;
    while section.contains_key(&unique) {
        number += 1;
        unique = format!("{name} ({number})");
    }
    section.insert(unique, value);
}

fn network(dump: &net::Dump) -> Vec<(&'static str, Section)> {
    let name = |index: u32| {
        let link = dump.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("link {index}"), |link| link.name.clone())
    };
    let user_name = |index: u32| Some(name(index));
    let (mut links, mut addresses, mut routes, mut rules, mut neighbours) =
        (Section::new(), Section::new(), Section::new(), Section::new(), Section::new());
    for link in &dump.links {
        // Carrier, and what follows from it, comes some moments after its cause.
        let about = (link.up, link.mtu, link.mac, &link.altnames, &link.alias, &link.kind, link.controller, link.group);
        add(&mut links, link.name.clone(), format!("{about:?}"));
    }
    for address in &dump.addresses {
        // Duplicate address detection takes a second or two.
        let about = (&address.peer, &address.scope, address.protocol, address.permanent);
        add(&mut addresses, format!("{} dev {}", address.net, name(address.index)), format!("{about:?}"));
    }
    for route in &dump.routes {
        let about = format!("{:?} scope {} protocol {}", route.kind, route.scope, route.protocol);
        add(&mut routes, format!("{} table {}", route.shown(&user_name), route.table), about);
    }
    for rule in &dump.rules {
        add(&mut rules, format!("{rule:?}"), String::new());
    }
    // The others are found out by the kernel, and forgotten again.
    for entry in dump.neighbours.iter().filter(|entry| entry.proxy || entry.state == "permanent") {
        add(&mut neighbours, format!("{} dev {}", entry.ip, name(entry.index)), format!("{:?}", entry.mac));
    }
    vec![("link", links), ("address", addresses), ("route", routes), ("rule", rules), ("neighbour", neighbours)]
}

/// Lists tables, chains, rules, sets and their elements; without what rules count.
fn rules(netns: &net::Netns) -> net::Result<Section> {
    let mut found = Section::new();
    let listed = match nft::list(netns) {
        // A kernel without nf_tables has no rule either.
        Err(error) if error.is_unsupported() => return Ok(found),
        listed => listed?,
    };
    for table in &listed.tables {
        add(&mut found, format!("table {}", table.name), format!("{table:?}"));
    }
    for chain in &listed.chains {
        add(&mut found, format!("chain {} of table {}", chain.name, chain.table), format!("{chain:?}"));
    }
    for rule in &listed.rules {
        let name = format!("rule {} in chain {} of table {}", rule.text, rule.at.chain, rule.at.table);
        add(&mut found, name, format!("{:?}", rule.comment));
    }
    for set in &listed.sets {
        let mut elements: Vec<String> = set.elements.iter().map(|element| format!("{element:?}")).collect();
        elements.sort();
        add(&mut found, format!("set {:?}", set.set), elements.join(" "));
    }
    Ok(found)
}

/// Reads all settings of the network. The first that is left out counts connections; the second is a random number made when a
/// server first asks for it.
fn sysctls() -> Section {
    const VOLATILE: [&str; 2] = ["net.netfilter.nf_conntrack_count", "net.ipv4.tcp_fastopen_key"];
    let mut found = Section::new();
    read_settings(Path::new("/proc/sys/net"), &mut found);
    found.retain(|name, _| !VOLATILE.contains(&name.as_str()));
    found
}

fn read_settings(dir: &Path, found: &mut Section) {
    // A directory that goes with its device meanwhile, and a setting that can't be read, is none.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read_settings(&path, found);
        } else if let (Ok(text), Ok(key)) = (fs::read_to_string(&path), path.strip_prefix("/proc/sys")) {
            // Dots in the name of a device are slashes in sysctl(8)'s keys.
            let key: Vec<String> = key.iter().map(|part| part.to_string_lossy().replace('.', "/")).collect();
            found.insert(key.join("."), text.trim_end().to_string());
        }
    }
}

fn mounts() -> Section {
    let mut found = Section::new();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in text.lines() {
        // proc_pid_mountinfo(5): the numbers that the kernel gave come first, the place of the mount is the fifth word.
        if let [_, _, _, root, point, ..] = line.split(' ').collect::<Vec<_>>()[..] {
            add(&mut found, point.to_string(), root.to_string());
        }
    }
    // Where named namespaces are kept is a mount of its own from the first one on.
    found.remove("/run/netns");
    found
}

/// Lists what the store holds: pools, leases and records. Where the search for a free address goes on is not compared: that moves
/// whenever one is taken.
fn store(state: &StateDir) -> Result<Section> {
    let mut found = Section::new();
    if !state.has_store() {
        return Ok(found);
    }
    let store = state.store()?;
    let ipam = Ipam::new(store.as_ref());
    for pool in ipam.pools()? {
        let subnet = pool.spec.subnet;
        add(&mut found, format!("pool {subnet}"), String::new());
        for lease in ipam.leases(subnet)? {
            add(&mut found, format!("lease of {} from pool {subnet}", lease.ip), String::new());
        }
    }
    for key in store.list(&Key::kind(RECORDS))? {
        let value = store.get(&key)?.map(|value| value.to_string()).unwrap_or_default();
        add(&mut found, format!("record {}", key.names().join("/")), value);
    }
    Ok(found)
}
