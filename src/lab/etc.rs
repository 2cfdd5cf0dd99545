//! What commands in a lab's namespaces see of /etc: the names of the lab's nodes, and name servers of their own.
//!
//! For each file the first of these counts: what the script says (`resolver`), what stands in /etc/netns/NAME, as for
//! `ip netns exec`, and for `hosts` the names of the lab's nodes. The machine's own /etc is seen by all else, and by commands on
//! the host.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::model::Model;
use crate::net::{EtcFile, regular};
use crate::state::{Error, NetnsAt, NetnsRef, Result};

/// Where the files of `ip netns exec` are.
const OF_NETNS: &str = "/etc/netns";
const HOSTS: &str = "/etc/hosts";
/// The largest file of names that is looked at.
const HOSTS_BYTES_MAX: u64 = 64 << 20;
/// The file that a resolver is about.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Returns what a command in a namespace sees otherwise, for a lab whose directory is `dir`; the file of names is brought up to
/// date with the lines about the lab's nodes. `has_resolver` tells whether the namespace has name servers of its own.
pub(crate) fn files_for(
    nodes: impl FnOnce() -> String,
    has_resolver: bool,
    dir: &Path,
    at: &NetnsRef,
) -> Result<Vec<EtcFile>> {
    if at.no == 0 {
        return Ok(Vec::new());
    }
    let mut files = if matches!(at.at, NetnsAt::Named | NetnsAt::NamedAs(_)) { of_netns(&at.name) } else { Vec::new() };
    if has_resolver {
        files.retain(|file| file.at != Path::new(RESOLV_CONF));
        files.push(EtcFile { shown: resolver_file(dir, at.no), at: RESOLV_CONF.into() });
    }
    if files.iter().all(|file| file.at != Path::new(HOSTS)) && Path::new(HOSTS).exists() {
        let nodes = nodes();
        if !nodes.is_empty() {
            let shown = dir.join("etc/hosts");
            let own = regular::read_text(Path::new(HOSTS), HOSTS_BYTES_MAX).unwrap_or_default();
            bring_up_to_date(&shown, &format!("{nodes}{}", own_names(&own)))
                .map_err(|source| Error::file(format!("write `{}`", shown.display()), &source))?;
            files.push(EtcFile { shown, at: HOSTS.into() });
        }
    }
    Ok(files)
}

/// Returns where the name servers of a namespace stand.
pub(super) fn resolver_file(dir: &Path, netns: u32) -> PathBuf {
    dir.join(format!("etc/{netns}-resolv.conf"))
}

/// Returns the user's own files for a namespace.
fn of_netns(name: &str) -> Vec<EtcFile> {
    let entries = fs::read_dir(Path::new(OF_NETNS).join(name)).into_iter().flatten().flatten();
    let file = |entry: fs::DirEntry| EtcFile { shown: entry.path(), at: Path::new("/etc").join(entry.file_name()) };
    // In the place of a file that isn't there, nothing can be shown.
    entries.map(file).filter(|file| file.at.exists()).collect()
}

/// Returns a line for each address that the lab gave to a namespace: the address and the namespace's name.
pub(crate) fn nodes(model: &Model) -> String {
    let mut seen: BTreeSet<(u32, IpAddr)> = BTreeSet::new();
    let mut text = String::new();
    for dev in model.all_devs().filter(|dev| dev.dev.netns.no != 0 && dev.dev.netns.name != "localhost") {
        for ip in dev.addresses.iter().map(|net| net.ip()).filter(|ip| !is_link_local(ip)) {
            if seen.insert((dev.dev.netns.no, ip)) {
                text.push_str(&format!("{ip}\t{}\n", dev.dev.netns.name));
            }
        }
    }
    text
}

fn is_link_local(ip: &IpAddr) -> bool {
    // Without its device it can't be reached.
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Returns the lines of the machine's own file that are about the machine itself: those of loopback and multicast addresses.
fn own_names(text: &str) -> String {
    let is_own = |line: &&str| {
        let ip = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok());
        ip.is_some_and(|ip| ip.is_loopback() || ip.is_multicast())
    };
    let own: String = text.lines().filter(is_own).map(|line| format!("{line}\n")).collect();
    if own.is_empty() { "127.0.0.1\tlocalhost\n::1\tlocalhost\n".into() } else { own }
}

/// Writes a file where it is, so that commands that run already see it too.
pub(super) fn bring_up_to_date(path: &Path, text: &str) -> io::Result<()> {
    match regular::read(path, HOSTS_BYTES_MAX) {
        Ok(now) if now == text.as_bytes() => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(dir) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            }
        }
        _ => {}
    }
    // Whoever reads it meanwhile, and is not root, finds what was there or what will be.
    let mut options = OpenOptions::new();
    let file = regular::open(path, options.create(true).truncate(false).write(true).mode(0o644))?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_lines_stay() {
        let text = "# a comment\n127.0.0.1 localhost\n127.0.1.1 desk\n192.0.2.7 nas\n::1 localhost ip6-localhost\nff02::1 ip6-allnodes\nrubbish\n";
        let own = "127.0.0.1 localhost\n127.0.1.1 desk\n::1 localhost ip6-localhost\nff02::1 ip6-allnodes\n";
        assert_eq!(own_names(text), own);
        assert!(own_names("").contains("localhost"));
    }

    #[test]
    fn a_file_is_brought_up_to_date_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("etc/hosts");
        bring_up_to_date(&path, "one\ntwo\n").expect("written");
        let open = fs::File::open(&path).expect("opened");
        bring_up_to_date(&path, "one\n").expect("shorter");
        assert_eq!(io::read_to_string(open).expect("read"), "one\n");
    }
}
