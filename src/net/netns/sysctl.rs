//! The kernel's settings under /proc/sys/net. Which namespace's they are depends on the thread that opens the file.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::private_proc::open_to_write;
use crate::net::{Error, Netns, Result, fault};

/// Returns the file of a key: "net.ipv4.ip_forward", or "net.ipv4.conf.eth0/100.forwarding" where sysctl(8) writes a
/// slash for the dot in a name. A key whose first separator is a slash is taken as a path, also as there.
///
/// EINVAL for keys outside `net.`, and for parts that are empty, "." or "..".
pub fn path(key: &str) -> Result<PathBuf> {
    let refused = |why: &str| Error::new(format!("find sysctl `{key}`"), libc::EINVAL).saying(format!("`{key}` {why}"));
    let as_path = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key.to_string(),
        _ => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    let mut parts = as_path.split('/');
    if parts.next() != Some("net") {
        return Err(refused("is not under net."));
    }
    let mut path = PathBuf::from("/proc/sys/net");
    let mut deep = false;
    for part in parts {
        if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
            return Err(refused("is no name of a setting"));
        }
        path.push(part);
        deep = true;
    }
    if !deep {
        return Err(refused("is no name of a setting"));
    }
    Ok(path)
}

/// Reads a setting, without the line's end.
///
/// Like `sysctl -n KEY`. ENOENT if the kernel has no such setting.
pub fn read(netns: &Netns, key: &str) -> Result<String> {
    let path = path(key)?;
    let text = netns.inside(|| fs::read_to_string(&path))?;
    let text = text.map_err(|error| Error::io(format!("read sysctl `{key}`"), error))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_string())
}

/// Lists the names below a key, such as the devices below `net.ipv4.conf`, sorted.
///
/// Like `ls /proc/sys/net/ipv4/conf`. ENOENT if the kernel has no such settings.
pub fn list(netns: &Netns, key: &str) -> Result<Vec<String>> {
    let path = path(key)?;
    let names = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    };
    netns.inside(names)?.map_err(|error| Error::io(format!("list sysctls `{key}`"), error))
}

/// Writes a setting.
///
/// Like `sysctl -w KEY=VALUE`. ENOENT if the kernel has no such setting, EINVAL for a value that it does not take.
pub fn write(netns: &Netns, key: &str, value: &str) -> Result<()> {
    netns.inside(|| write_here(key, value))?
}

/// Writes settings, in one visit to the namespace. Those of IPv6 are left out where the kernel has none.
///
/// Like `sysctl -w KEY=VALUE …`. Fails as `write` does.
pub fn write_all(netns: &Netns, settings: &[(String, &str)]) -> Result<()> {
    netns.inside(|| {
        let has_v6 = fs::exists("/proc/sys/net/ipv6").unwrap_or(true);
        let those = settings.iter().filter(|(key, _)| has_v6 || !key.starts_with("net/ipv6/"));
        those.into_iter().try_for_each(|(key, value)| write_here(key, value))
    })?
}

/// Writes a setting of the namespace of the calling thread.
fn write_here(key: &str, value: &str) -> Result<()> {
    let path = path(key)?;
    let doing = format!("write `{value}` to sysctl `{key}`");
    fault::point(&doing)?;
    // Never created: what is not there is an error. One write, since the kernel parses each on its own (proc(5)).
    let written = open_to_write(&path).and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()));
    written.map_err(|error| Error::io(doing, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::netns;

    #[test]
    fn keys_are_names_or_paths() {
        for (key, file) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/100.forwarding", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "/proc/sys/net/ipv4/conf/eth0.100/forwarding"),
        ] {
            assert_eq!(path(key).expect(key), PathBuf::from(file), "{key}");
        }
    }

    #[test]
    fn keys_never_lead_out_of_net() {
        for key in [
            "",
            "net",
            "net.",
            ".net.core",
            "kernel.panic",
            "vm/swappiness",
            "/proc/sys/net/core/somaxconn",
            "net..ipv4",
            "net.//.kernel.panic",
            "net/../kernel/panic",
            "net/./core",
            "net.ipv4.a\0b",
            "network.x",
        ] {
            let error = path(key).expect_err(key);
            assert_eq!(error.errno(), libc::EINVAL, "{key}");
        }
    }

    #[test]
    fn a_setting_is_that_of_its_namespace() {
        let (a, b) = (netns(), netns());
        let key = "net.ipv4.ip_forward";
        let before = (read(&a, key).expect("a"), read(&b, key).expect("b"));
        assert_eq!(before, ("0".to_string(), "0".to_string()));
        write(&a, key, "1").expect("written");
        assert_eq!((read(&a, key).expect("a"), read(&b, key).expect("b")), ("1".to_string(), "0".to_string()));
        assert!(!read(&a, "net.ipv4.ping_group_range").expect("two numbers").contains('\n'));
    }

    #[test]
    fn what_is_not_there_or_not_taken() {
        let netns = netns();
        let error = read(&netns, "net.ipv4.no_such_thing").expect_err("absent");
        assert!(error.is_gone());
        assert_eq!(error.doing(), "read sysctl `net.ipv4.no_such_thing`");
        let error = write(&netns, "net.ipv4.ip_forward", "perhaps").expect_err("no number");
        assert_eq!(error.errno(), libc::EINVAL);
    }
}
