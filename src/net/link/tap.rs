//! Links whose other end is a program: tap carries Ethernet frames, tun packets. Like `ip tuntap`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use serde::{Deserialize, Serialize};

use crate::net::{Error, Netns, Result, fault};

/// What such a link is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// Whether it carries frames, and not packets alone.
    pub ethernet: bool,
    /// The user who may open it; anyone with CAP_NET_ADMIN unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// The group whose members may open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Whether several queues can be opened at a time.
    #[serde(default)]
    pub multi_queue: bool,
    /// Whether there is a header of virtio on each packet, which lets large ones through.
    #[serde(default)]
    pub vnet_hdr: bool,
}

impl Tap {
    /// Returns iproute2's word for the mode.
    pub fn mode(&self) -> &'static str {
        if self.ethernet { "tap" } else { "tun" }
    }

    /// Writes it as `ip tuntap add` takes it.
    pub fn words(&self) -> String {
        let number = |key: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {key} {value}"));
        let flag = |key: &str, on: bool| if on { format!(" {key}") } else { String::new() };
        let (user, group) = (number("user", self.user), number("group", self.group));
        format!(
            "mode {}{user}{group}{}{}",
            self.mode(),
            flag("multi_queue", self.multi_queue),
            flag("vnet_hdr", self.vnet_hdr)
        )
    }
}

/// A link that ends with this, until it is kept.
#[derive(Debug)]
pub struct NewTap {
    file: File,
    name: String,
}

/// `struct ifreq` of linux/if.h, as far as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

/// Makes a link with its name and number in the namespace; it is down.
///
/// Like `ip tuntap add dev NAME mode tap`. EBUSY if the name is taken, EEXIST if the number is; EOPNOTSUPP if there is no
/// device /dev/net/tun, EACCES without the right to open it.
pub fn add_tap(netns: &Netns, name: &str, index: u32, tap: &Tap) -> Result<NewTap> {
    let doing = format!("add {} `{name}`", tap.mode());
    fault::point(&doing)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    if name.len() >= request.name.len() {
        return Err(Error::new(doing, libc::ENAMETOOLONG));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let kind = if tap.ethernet { libc::IFF_TAP } else { libc::IFF_TUN };
    let queues = if tap.multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let header = if tap.vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
    // An existing one of this name is not joined (tun_set_iff in drivers/net/tun.c).
    request.flags = (kind | libc::IFF_NO_PI | libc::IFF_TUN_EXCL | queues | header) as i16;
    let index = i32::try_from(index).map_err(|_| Error::new(&*doing, libc::ERANGE))?;
    let make = || -> std::io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => std::io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                _ => error,
            }
        })?;
        // SAFETY: the kernel reads one int behind the pointer, which outlives the call.
        done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFINDEX, &raw const index) })?;
        // SAFETY: the kernel reads and writes one `struct ifreq` of 40 bytes, which `Request` has the size of.
        done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        Ok(file)
    };
    let file = netns.inside(make)?.map_err(|error| Error::io(&*doing, error))?;
    let number = |request: libc::Ioctl, value: Option<u32>| match value {
        // SAFETY: the argument of this ioctl is a number.
        Some(value) => done(unsafe { libc::ioctl(file.as_raw_fd(), request, libc::c_ulong::from(value)) }),
        None => Ok(()),
    };
    number(libc::TUNSETOWNER, tap.user)
        .and_then(|()| number(libc::TUNSETGROUP, tap.group))
        .map_err(|error| Error::io(&*doing, error))?;
    Ok(NewTap { file, name: name.to_string() })
}

impl NewTap {
    /// Lets the link stay until it is deleted.
    pub fn keep(self) -> Result<()> {
        let doing = format!("keep link `{}`", self.name);
        fault::point(&doing)?;
        // SAFETY: the argument of this ioctl is a number.
        done(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) })
            .map_err(|error| Error::io(doing, error))
    }
}

fn done(result: libc::c_int) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::link;
    use crate::net::testing::{block_on, judge, netns_and_rtnl};

    const TAP: Tap = Tap { ethernet: true, user: Some(4711), group: None, multi_queue: true, vnet_hdr: false };

    #[test]
    fn it_stays_once_it_is_kept() {
        assert_eq!(size_of::<Request>(), 40);
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let new = add_tap(&netns, "tap0", 1234, &TAP).expect("a tap");
            assert_eq!(link::find(&rtnl, "tap0").expect("read").expect("tap0").index, 1234);
            drop(new);
            assert_eq!(link::find(&rtnl, "tap0").expect("read"), None);
            add_tap(&netns, "tap0", 1234, &TAP).expect("a tap").keep().expect("kept");
            let seen = &judge(&netns, "ip -j -d link show tap0").await[0];
            let data = &seen["linkinfo"]["info_data"];
            assert_eq!(
                (&data["type"], &data["persist"], &data["multi_queue"]),
                (&"tap".into(), &true.into(), &true.into())
            );
            assert_eq!(data["user"].to_string().trim_matches('"'), "4711");
            assert_eq!(add_tap(&netns, "tap0", 1235, &TAP).expect_err("taken").errno(), libc::EBUSY);
            link::delete(&rtnl, 1234).expect("deleted");
        });
    }

    #[test]
    fn a_tun_carries_packets() {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            let tun = Tap { ethernet: false, user: None, multi_queue: false, ..TAP };
            add_tap(&netns, "tun0", 1234, &tun).expect("a tun").keep().expect("kept");
            let link = link::get(&rtnl, 1234).expect("read").expect("tun0");
            assert_eq!((link.kind.as_deref(), link.mac), (Some("tun"), None));
        });
    }
}
