//! The full dump of a world, and the difference of two.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::command::breathe;
use super::facts::{self, Section, add};
use super::{LATE, Login, World};

/// All that can be left behind in a world, as tools that aren't ours and `/proc` tell it.
///
/// Two dumps of an idle world are equal, however busy it was before: see `facts` for what is left out. Not in it are what
/// processes keep in memory, tc filters, multicast groups, and files elsewhere than in `/run` and in the state and
/// temporary directories.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    sections: Vec<(&'static str, Section)>,
}

/// Asks for what changes most, with one program.
const AT_A_GLANCE: &str = r"
answer() { printf '\001%s\n' $1; }
answer network
ip -d -j -batch - <<'END'
link show
address show
route show table all
nexthop show
neighbour show nud all
neighbour show proxy
rule show
END
";

/// Asks everything else that only a process in the world's network can ask, with as few processes as will do.
const REST: &str = r"
answer rules6
if [ -d /proc/sys/net/ipv6 ]; then ip -d -j -6 rule show; fi
answer qdiscs
tc -j qdisc show
answer sysctls
grep -rsH '' /proc/sys/net || [ $? -le 2 ] # 2: some can't be read, which is so
if command -v nft >/dev/null; then
    answer nft
    nft -s list ruleset
else
    for v in '' 6; do # iptables-save of the nft kind is a view of the same rules
        answer ip${v}tables
        if command -v ip${v}tables-save >/dev/null; then ip${v}tables-save; fi
    done
fi
for v in '' 6; do # the old tables, if anything in this world ever used them
    answer old_ip${v}tables
    if read -r _ 2>/dev/null </proc/net/ip${v}_tables_names; then
        if command -v ip${v}tables-legacy-save >/dev/null; then ip${v}tables-legacy-save
        else cat /proc/net/ip${v}_tables_names; fi
    fi
done
";

impl Snapshot {
    pub(super) fn take(world: &World) -> Snapshot {
        Snapshot::of(world, &[AT_A_GLANCE, REST].concat())
    }

    /// Takes the sections that cost little: all but settings, queueing disciplines, rules of firewalls and IPv6 routing rules.
    pub(super) fn glance(world: &World) -> Snapshot {
        Snapshot::of(world, AT_A_GLANCE)
    }

    fn of(world: &World, questions: &str) -> Snapshot {
        let answers = answers(world, questions);
        let mut sections = Vec::new();
        for (topic, text) in answers.split('\u{1}').filter_map(|answer| answer.split_once('\n')) {
            match topic {
                "network" => sections.extend(facts::network(text)),
                "rules6" => sections.push(("IPv6 rules", facts::ipv6_rules(text))),
                "qdiscs" => sections.push(("queueing disciplines", facts::qdiscs(text))),
                "sysctls" => sections.push(("sysctls", facts::sysctls(text))),
                "nft" => sections.push(("nftables", facts::nft(text))),
                "iptables" => sections.push(("iptables", facts::iptables(text))),
                "ip6tables" => sections.push(("ip6tables", facts::iptables(text))),
                "old_iptables" => sections.push(("iptables (legacy)", facts::iptables(text))),
                "old_ip6tables" => sections.push(("ip6tables (legacy)", facts::iptables(text))),
                other => panic!("nobody asked for {other}"),
            }
        }
        // The rest is read from here, through the holder's eyes, after the last process of ours in there has ended.
        let proc = PathBuf::from(format!("/proc/{}", world.holder.pid()));
        let mountinfo = fs::read_to_string(proc.join("mountinfo")).expect("read the mounts of the world");
        let (processes, mut namespaces) = processes(&proc);
        for line in mountinfo.lines().filter(|line| line.contains(" - nsfs ")) {
            if let [_, _, _, root, point, ..] = line.split(' ').collect::<Vec<_>>()[..] {
                add(&mut namespaces, format!("{root} mounted at {point}"), Value::Null);
            }
        }
        for name in fs::read_dir(proc.join("root/run/netns")).into_iter().flatten().flatten() {
            add(&mut namespaces, format!("netns {}", name.file_name().display()), Value::Null);
        }
        let mut files = Section::new();
        list(&proc.join("root"), Path::new("/run"), &mut files);
        for dir in [world.state(), world.dir().join("tmp")] {
            list(Path::new("/"), &dir, &mut files);
        }
        // It repeats what the journal says. `ls` writes it, and it goes with the lab.
        files.retain(|path, _| !(path.contains("/labs/") && path.ends_with("/names")));
        // What runtimes were refused is kept for who asks why.
        files.retain(|path, _| !path.ends_with("/state/refused"));
        sections.extend([("network namespaces", namespaces), ("mounts", facts::mounts(&mountinfo))]);
        sections.extend([("processes", processes), ("files", files)]);
        Snapshot { sections }
    }

    /// Returns the dump with other names and values for things, and without those for which `change` has none.
    pub(crate) fn mapped(&self, change: impl Fn(&str, &Value) -> Option<(String, Value)>) -> Snapshot {
        let map = |section: &Section| {
            let mut mapped = Section::new();
            let things = section.iter().filter_map(|(name, value)| change(name, value));
            things.for_each(|(name, value)| add(&mut mapped, name, value));
            mapped
        };
        Snapshot { sections: self.sections.iter().map(|(title, section)| (*title, map(section))).collect() }
    }

    /// Describes what became of `self` in `after`, as far as that was asked for; empty if nothing did.
    pub(crate) fn diff(&self, after: &Snapshot) -> String {
        const SHOWN: usize = 15;
        let mut text = String::new();
        for (title, before) in &self.sections {
            let Some((_, after)) = after.sections.iter().find(|(also, _)| also == title) else { continue };
            let mut lines = Vec::new();
            for (name, value) in before {
                match after.get(name) {
                    None => lines.push(format!("  - {name}{}", brief(value))),
                    Some(now) => changes(name, value, now, &mut lines),
                }
            }
            let added = after.iter().filter(|(name, _)| !before.contains_key(*name));
            lines.extend(added.map(|(name, value)| format!("  + {name}{}", brief(value))));
            if lines.is_empty() {
                continue;
            }
            let more = lines.len().saturating_sub(SHOWN);
            lines.truncate(SHOWN);
            writeln!(text, "{title}:\n{}", lines.join("\n")).expect("write to a string");
            if more > 0 {
                writeln!(text, "    and {more} more").expect("write to a string");
            }
        }
        text
    }
}

/// Gets the answers; asks again when what vanishes meanwhile, with a dying namespace, disturbs a listing.
fn answers(world: &World, questions: &str) -> String {
    let start = Instant::now();
    loop {
        let ran = world.start(Login::Root, Path::new("sh"), &["-ec", questions], &[], None).wait();
        // nft and iptables begin a remark on each other's tables with `#`.
        if ran.code == 0 && ran.stderr.lines().all(|line| line.is_empty() || line.starts_with('#')) {
            return ran.stdout;
        }
        assert!(
            start.elapsed() < LATE,
            "a world can't be dumped (exit code {}): {}\nfix: install iproute2 and grep; nft and iptables, if there, must work",
            ran.code,
            ran.stderr
        );
        breathe();
    }
}

fn changes(name: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    let (Some(was), Some(is)) = (before.as_object(), after.as_object()) else {
        lines.push(format!("  ~ {name}: {before} -> {after}"));
        return;
    };
    let mut keys: Vec<&String> = was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))).collect();
    keys.sort();
    for key in keys {
        let none = Value::Null;
        changes(&format!("{name}, {key}"), was.get(key).unwrap_or(&none), is.get(key).unwrap_or(&none), lines);
    }
}

/// Shows a value behind its name, as far as a line goes.
fn brief(value: &Value) -> String {
    const WIDTH: usize = 160;
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => format!(" = {text:?}"),
        other => format!(" {other}"),
    };
    if text.chars().count() <= WIDTH { text } else { format!("{}…", text.chars().take(WIDTH).collect::<String>()) }
}

/// Lists the processes of a world but its first, and the network namespaces that they hold, other than the world's own.
fn processes(holder: &Path) -> (Section, Section) {
    let (mut processes, mut namespaces) = (Section::new(), Section::new());
    let own = fs::read_link(holder.join("ns/net")).expect("look at the network namespace of the world");
    let kind = fs::metadata(holder.join("ns/net")).expect("look at the network namespace of the world").dev();
    let proc = holder.join("root/proc");
    let numbers = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok()))
            .collect()
    };
    for process in numbers(&proc).into_iter().filter(|path| !path.ends_with("1")) {
        // One that ends while it is read is one that has ended.
        let Ok(comm) = fs::read_to_string(process.join("comm")) else { continue };
        let Ok(line) = fs::read(process.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
        let name = format!("{} `{line}`", comm.trim_end());
        let mut held: Vec<(PathBuf, &str)> = Vec::new();
        for thread in numbers(&process.join("task")) {
            held.extend(fs::read_link(thread.join("ns/net")).ok().map(|link| (link, "the namespace of")));
        }
        for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            // One that was opened by its path shows that path.
            let namespace = fs::metadata(descriptor.path()).is_ok_and(|meta| meta.dev() == kind);
            held.extend(fs::read_link(descriptor.path()).ok().filter(|_| namespace).map(|link| (link, "held open by")));
        }
        held.sort();
        held.dedup();
        for (link, how) in held.into_iter().filter(|(link, _)| *link != own) {
            add(&mut namespaces, format!("{} {how} {name}", link.display()), Value::Null);
        }
        add(&mut processes, name, Value::Null);
    }
    (processes, namespaces)
}

/// Lists the files below `dir` as seen from `root`: what they are, whose, and what small ones contain.
fn list(root: &Path, dir: &Path, files: &mut Section) {
    let seen = root.join(dir.strip_prefix("/").unwrap_or(dir));
    for entry in fs::read_dir(seen).into_iter().flatten().flatten() {
        let name = dir.join(entry.file_name());
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if is_empty_lease_file(&entry.path()) {
            continue;
        }
        let mut about = Map::new();
        about.insert("mode".to_owned(), json!(format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid())));
        if meta.is_file() {
            about.insert("content".to_owned(), json!(content(&entry.path(), meta.len())));
        } else if meta.is_symlink() {
            about.insert("target".to_owned(), json!(fs::read_link(entry.path()).unwrap_or_default()));
        } else if meta.file_type().is_block_device() || meta.file_type().is_char_device() {
            about.insert("device".to_owned(), json!(meta.rdev()));
        }
        let is_dir = meta.is_dir();
        add(files, name.display().to_string(), Value::Object(about));
        if is_dir {
            list(root, &name, files);
        }
    }
}

fn content(path: &Path, size: u64) -> String {
    const SMALL: u64 = 16_384;
    if size > SMALL {
        return format!("{size} bytes");
    }
    match fs::read(path) {
        Ok(bytes) => {
            leases(path).map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), |leases| leases.to_string())
        }
        Err(err) => format!("unreadable: {:?}", err.kind()),
    }
}

/// Returns the leases in a file of theirs, without the place where the search for a free address goes on: that moves whenever
/// one is taken, and stays when it is given back.
fn leases(path: &Path) -> Option<Value> {
    if !path.to_string_lossy().contains("/leases/") {
        return None;
    }
    let block: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    block.get("value")?.get("leases").cloned()
}

/// Tells whether a file of leases has none: only where the search goes on.
fn is_empty_lease_file(path: &Path) -> bool {
    leases(path).is_some_and(|leases| leases.as_array().is_some_and(Vec::is_empty))
}
