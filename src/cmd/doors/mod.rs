//! Doors: how container runtimes use our networks. Each file is the protocol of one: what it hands over, and what it is answered. What
//! happens is a script of the library, the module `container`, which is behind all of them.

pub(super) mod act;
pub(super) mod cdi;
pub(super) mod cni;
pub(super) mod docker;
pub(super) mod hook;
mod netavark;
mod oci;
mod own_script;
pub(super) mod refused;

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Does what the program is asked for under a name that is a runtime's; `None` where that is `topo`.
pub(super) fn begin(words: &[OsString]) -> Option<u8> {
    if words.get(1).is_some_and(|word| word == docker::CALL) {
        return Some(docker::answer(words));
    }
    let name = words.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str)?;
    match name {
        cni::PLUGIN if netavark::is_call(words) => Some(netavark::plugin(words)),
        cni::PLUGIN => Some(cni::plugin(words)),
        cni::LOOPBACK => Some(cni::loopback()),
        _ => None,
    }
}

/// Reads all that a runtime hands over on standard input; what is larger than any runtime's is refused.
fn read_stdin() -> std::io::Result<String> {
    use std::io::Read;
    const MAX: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}

/// Returns a port mapping as `network::connect` takes it. An address that stands for all is none.
fn port_text(host_ip: Option<&str>, host_ports: &str, ports: &str, proto: &str) -> String {
    let address = match host_ip {
        None | Some("" | "0.0.0.0" | "::") => String::new(),
        Some(ip) if ip.contains(':') => format!("[{ip}]:"),
        Some(ip) => format!("{ip}:"),
    };
    format!("{address}{host_ports}:{ports}/{}", proto.to_lowercase())
}

/// A door, as `topo doctor` tells of it.
pub(super) struct Door {
    pub(super) name: &'static str,
    pub(super) is_open: bool,
    pub(super) about: String,
    pub(super) fix: &'static str,
}

/// Looks which runtimes are here, and whether the files are there by which they find our networks.
pub(super) fn looked_at() -> Vec<Door> {
    let dirs = crate::terminal::environment::PATH.value().unwrap_or_default();
    let has = |program: &&str| std::env::split_paths(&dirs).any(|dir| dir.join(program).is_file());
    let installed = |programs: &[&str]| programs.iter().copied().filter(has).collect::<Vec<_>>().join(", ");
    let any = |paths: &[&str]| paths.iter().any(|path| Path::new(path).exists());
    let mut doors = Vec::new();
    let mut tell = |name, programs: &[&str], is_open: bool, open: &str, fix| {
        let here = installed(programs);
        let about = match (here.is_empty(), is_open) {
            (true, _) => format!("none of {} is here", programs.join(", ")),
            (false, true) => format!("{here}: {open}"),
            (false, false) => format!("{here}: not told of our networks"),
        };
        doors.push(Door {
            name,
            is_open: is_open && !here.is_empty(),
            about,
            fix: if here.is_empty() { "" } else { fix },
        });
    };
    tell("OCI hook", &["runc", "crun", "youki"], true, "a bundle names `topo hook oci`", "");
    let cdi = cdi::DIRS.iter().any(|dir| Path::new(dir).join(cdi::FILE).exists());
    tell(
        "CDI devices",
        &["podman", "dockerd", "containerd", "crio"],
        cdi,
        "`--device toposcript.dev/net=NETWORK`",
        "`topo cdi generate`",
    );
    let hooks = hook::HOOK_DIRS.iter().any(|dir| Path::new(dir).join("toposcript.json").exists());
    tell(
        "OCI hooks.d",
        &["podman", "crio"],
        hooks,
        "`--annotation dev.toposcript.network=NETWORK`",
        "`topo hook install`",
    );
    let cni = any(&["/opt/cni/bin/toposcript", "/usr/lib/cni/toposcript", "/usr/libexec/cni/toposcript"]);
    tell(
        "CNI plugin",
        &["containerd", "crio", "nomad", "podman"],
        cni,
        "`topo cni install` has linked it",
        "`topo cni install NETWORK`",
    );
    tell(
        "Docker driver",
        &["dockerd"],
        any(&[docker::SOCKET]),
        "`docker network create --driver toposcript --ipam-driver toposcript NETWORK`",
        "`topo docker serve`, or the units in `packaging/systemd`",
    );
    doors
}

/// Returns texts that are nearly `good`: with values of other types, without a key, and with bytes that were changed.
#[cfg(test)]
fn mutated(good: &serde_json::Value, count: usize) -> impl Iterator<Item = String> {
    use serde_json::{Value, json};
    /// Returns all places of a value: the pointers of RFC 6901.
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_string());
        let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), found))
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found))
            }
            _ => {}
        }
    }
    let (good, mut all) = (good.clone(), Vec::new());
    places(&good, "", &mut all);
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("\u{0}"),
        json!("é/:,;=.."),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "": {} }),
        json!("x".repeat(300)),
        json!("10.0.0.0/99"),
        json!(["10.0.0.1", 7]),
    ];
    // xorshift64 (Marsaglia): the same texts each time.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap_or_default()
    };
    (0..count).map(move |_| {
        let mut value = good.clone();
        for _ in 0..next(3) {
            if let Some(at) = value.pointer_mut(&all[next(all.len())]) {
                *at = strange[next(strange.len())].clone();
            }
        }
        let mut bytes = value.to_string().into_bytes();
        if next(3) == 0 {
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = next(128) as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, b"\"{}[],:\\"[next(8)]),
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
