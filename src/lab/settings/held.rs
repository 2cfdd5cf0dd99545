//! Which labs hold which settings of a host, and the file that says so.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::FORWARDING;
use crate::lab::guard::Apart;
use crate::lab::inbound;
use crate::net::{self, ProcessId};
use crate::state::{files, name};

/// A lab that holds a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) lab: String,
    /// With `created`, what tells the lab from a later one of its name.
    pub(super) creator: ProcessId,
    pub(super) created: u64,
    pub(super) no: u32,
    pub(super) value: String,
    /// Who came later has the higher number, over all settings.
    pub(super) order: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) apart: bool,
}

/// A setting that labs hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// The value from before the first holder.
    pub(super) before: String,
    /// Other settings that change along with it, and go back with its last holder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) along: Vec<Along>,
    /// The devices that were the first holder's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) own: Vec<String>,
    pub(super) holders: Vec<Holder>,
}

/// A setting that changes along with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Along {
    pub(super) key: String,
    pub(super) before: String,
    /// The value that it gets; without one it gets that of the setting that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) put: Option<String>,
}

/// The settings of a host that labs hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) boot_id: String,
    pub(super) settings: BTreeMap<String, Setting>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Pending>,
}

/// What is about to be changed in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) writes: Vec<(String, String)>,
    /// Whether the rules that keep devices apart change.
    pub(super) guard: bool,
}

impl Setting {
    pub(super) fn top(&self) -> Option<&Holder> {
        self.holders.iter().max_by_key(|holder| holder.order)
    }

    pub(super) fn value(&self) -> &str {
        self.top().map_or(&self.before, |holder| &holder.value)
    }

    pub(super) fn position(&self, who: &Holder) -> Option<usize> {
        self.holders.iter().position(|known| known.is_of_lab(who) && known.no == who.no)
    }
}

impl Holder {
    fn is_of_lab(&self, other: &Holder) -> bool {
        (&self.lab, self.creator, self.created) == (&other.lab, other.creator, other.created)
    }
}

impl Held {
    pub(super) fn last_order(&self) -> u64 {
        self.settings.values().filter_map(Setting::top).map(|top| top.order).max().unwrap_or(0)
    }

    /// Returns the value that a setting is to have, as far as it is known: that of the last lab that set it or the one that it follows.
    pub(super) fn wanted(&self, key: &str) -> Option<String> {
        let own = self.settings.get(key);
        let leader = leader_of(key).and_then(|leader| self.settings.get(&leader));
        let tops = [own, leader].into_iter().flatten().filter_map(Setting::top);
        let top = tops.max_by_key(|holder| holder.order).map(|holder| holder.value.clone());
        top.or_else(|| own.map(|setting| setting.before.clone())).or_else(|| self.before(key))
    }

    /// Returns what a setting was before the one that it follows was held, if that is held or was until now.
    pub(super) fn before(&self, key: &str) -> Option<String> {
        let leader = self.settings.get(&leader_of(key)?)?;
        let of = |key: &str| leader.along.iter().find(|along| along.key == key).map(|along| along.before.clone());
        of(key).or_else(|| of(&leader_of(key)?.replace("/conf/all/", "/conf/default/")))
    }

    /// Returns the setting by which the lab of a holder keeps devices apart, the first one of several.
    pub(super) fn keeper(&self, who: &Holder) -> Option<&'static str> {
        let keeps = |key: &str| {
            let holders = self.settings.get(key).map(|setting| setting.holders.as_slice()).unwrap_or_default();
            holders.iter().any(|known| known.apart && known.is_of_lab(who))
        };
        let mut keys = FORWARDING.into_iter().zip(self.apart()).filter(|(_, apart)| !apart.is_empty());
        keys.find(|(key, _)| keeps(key)).map(|(key, _)| key)
    }

    /// Returns which devices are to be kept apart, for IPv4 and for IPv6.
    pub(super) fn apart(&self) -> [Apart; 2] {
        FORWARDING.map(|key| self.settings.get(key).map_or_else(Apart::default, |setting| self.apart_by(key, setting)))
    }

    /// Those that were there before the first holder: what came later is of somebody who knows that the host forwards.
    fn apart_by(&self, key: &str, setting: &Setting) -> Apart {
        let only_apart = !setting.holders.is_empty() && setting.holders.iter().all(|holder| holder.apart);
        // IPv4 goes by the device that a packet comes in by, IPv6 by the switch for all (ip_route_input_slow, ip6_forward).
        let is_v6 = key == FORWARDING[1];
        if !only_apart || is_v6 && setting.before != "0" {
            return Apart::default();
        }
        let mut apart = Apart::default();
        for along in setting.along.iter().filter(|along| leader_of(&along.key).as_deref() == Some(key)) {
            let Some(dev) = device_of(&along.key) else { continue };
            if dev == "lo" || setting.own.iter().any(|own| own == dev) {
                continue;
            }
            apart.to.push(dev.to_string());
            let asked_for = self.settings.get(&along.key).is_some_and(|own| !own.holders.is_empty());
            if is_v6 || along.before == "0" && !asked_for {
                apart.from.push(dev.to_string());
            }
        }
        apart
    }
}

/// Returns one name for a setting that has several.
pub(super) fn canonical(key: &str) -> net::Result<String> {
    if key == inbound::KEY {
        return Ok(key.to_string());
    }
    let path = net::netns::sysctl::path(key)?;
    let key = path.to_string_lossy().trim_start_matches("/proc/sys/").to_string();
    Ok(if key == "net/ipv4/ip_forward" { FORWARDING[0].to_string() } else { key })
}

/// Returns the setting for all devices that a device's is set along with, if there is such
/// (net/ipv4/devinet.c, inet_forward_change; net/ipv6/addrconf.c, the handlers of `addrconf_sysctl`).
pub(super) fn leader_of(key: &str) -> Option<String> {
    const FOLLOW: [(&str, &str); 6] = [
        ("ipv4", "forwarding"),
        ("ipv6", "forwarding"),
        ("ipv6", "force_forwarding"),
        ("ipv6", "disable_ipv6"),
        ("ipv6", "addr_gen_mode"),
        ("ipv6", "ignore_routes_with_linkdown"),
    ];
    let parts: Vec<&str> = key.split('/').collect();
    let ["net", family, "conf", dev, setting] = parts.as_slice() else { return None };
    (*dev != "all" && FOLLOW.contains(&(*family, *setting))).then(|| format!("net/{family}/conf/all/{setting}"))
}

/// Returns the family and the name of a setting for all devices that theirs are set along with.
pub(super) fn leads(key: &str) -> Option<(String, String)> {
    let (family, setting) = key.strip_prefix("net/")?.split_once("/conf/all/")?;
    leader_of(&format!("net/{family}/conf/default/{setting}")).map(|_| (family.to_string(), setting.to_string()))
}

/// Returns the device whose setting a key is.
fn device_of(key: &str) -> Option<&str> {
    let dev = key.split_once("/conf/")?.1.split('/').next()?;
    (dev != "default" && dev != "all").then_some(dev)
}

pub(super) fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

pub(super) fn is_along(held: &Held, key: &str) -> bool {
    let leader = leader_of(key).and_then(|leader| held.settings.get(&leader));
    leader.is_some_and(|leader| leader.along.iter().any(|along| along.key == key))
}

/// A file's content: a sum of its text, which tells whether a byte was lost or changed, and the text.
pub(super) fn read_file(path: &Path) -> net::Result<Held> {
    let doing = || format!("read `{}`", path.display());
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Held::default()),
        text => text.map_err(|error| net::Error::io(doing(), error))?,
    };
    let whole = text.strip_suffix('\n').and_then(|text| text.split_once(' '));
    let json = whole.filter(|(sum, json)| **sum == sum_of(json)).map(|(_, json)| json);
    let held = json.and_then(|json| serde_json::from_str(json).ok());
    held.ok_or_else(|| {
        let why = format!(
            "`{}` is damaged: it says what the settings of the host were before; set them yourself, and remove it",
            path.display()
        );
        net::Error::because(doing(), libc::EBADMSG, &why)
    })
}

fn sum_of(text: &str) -> String {
    format!("{:016x}", name::fnv1a(text.as_bytes()))
}

/// Needs no fsync: the settings do not outlive the machine either.
pub(super) fn write_file(path: &std::path::Path, held: &Held) -> std::io::Result<()> {
    files::point()?;
    let json = serde_json::to_string(held).map_err(std::io::Error::other)?;
    let temp = path.with_extension("tmp");
    let written = std::fs::write(&temp, format!("{} {json}\n", sum_of(&json)));
    let written = written.and_then(|()| files::point()).and_then(|()| std::fs::rename(&temp, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temp);
    }
    written
}

/// Tells whether a file is one that was being written.
pub(super) fn is_temp(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}
