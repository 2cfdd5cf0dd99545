//! The floor: a star and a chain by raw netlink in the best order that is known, without journal, marks or undo. What it takes is
//! what the kernel takes.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::netlink::*;
use super::ways::{Job, PORTS_EACH, bridges, gateway, host_address, namespaces as namespaces_of};

/// Indexes that no device of a new namespace has.
const FIRST_INDEX: u32 = 1000;

/// A namespace with a name in /run/netns, and a socket in it.
struct Netns {
    file: File,
    socket: Socket,
}

/// Makes namespaces on a thread of its own, ahead of their use; those of `routers` forward.
fn namespaces(n: usize, routers: Range<usize>) -> mpsc::Receiver<io::Result<Netns>> {
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        let mut proc = None;
        for i in 0..n {
            if routers.contains(&i) && i % PROC_RENEWED_AFTER == 1 {
                proc = Some(private_proc());
            }
            let forwards = proc.as_ref().filter(|_| routers.contains(&i));
            if sender.send(namespace(i, forwards)).is_err() {
                return;
            }
        }
    });
    receiver
}

fn namespace(i: usize, forwards: Option<&io::Result<File>>) -> io::Result<Netns> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    if let Some(proc) = forwards {
        let proc = proc.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        // Before there are devices, which get it from here.
        for setting in ["sys/net/ipv4/ip_forward", "sys/net/ipv6/conf/all/forwarding"] {
            let file = nix::fcntl::openat(proc, setting, OFlag::O_WRONLY, Mode::empty())?;
            File::from(file).write_all(b"1")?;
        }
    }
    let path = path_of(i);
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    let here = "/proc/thread-self/ns/net";
    nix::mount::mount(Some(here), path.as_str(), None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)?;
    Ok(Netns { file: File::open(here)?, socket: Socket::open()? })
}

/// So many namespaces are set by one instance of /proc, which keeps all that was looked up below it in one chain.
const PROC_RENEWED_AFTER: usize = 100;

/// Mounts an instance of /proc that has no place in any tree.
fn private_proc() -> io::Result<File> {
    let made = |done: libc::c_long| match libc::c_int::try_from(done) {
        // SAFETY: the kernel has just made the descriptor, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    };
    let none = std::ptr::null::<libc::c_void>();
    const CREATE: libc::c_int = 6;
    // SAFETY: the text ends with a zero and lives longer than the call.
    let context = made(unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), 0) })?;
    // SAFETY: this command takes neither a key nor a value, and the descriptor is open.
    if unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    made(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 0, 0) }).map(File::from)
}

fn path_of(i: usize) -> String {
    format!("/run/netns/h{}", i + 1)
}

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0xf0, a, b, c, d]
}

/// Appends the link-local address that a hardware address makes, without the search for duplicates.
fn link_local(messages: &mut Messages, index: u32, mac: [u8; 6]) {
    let [a, b, c, d, e, f] = mac;
    let ip = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    const NODAD: u32 = 2;
    messages.make(RTM_NEWADDR).raw(&[libc::AF_INET6 as u8, 64, NODAD as u8, 0]).raw(&index.to_ne_bytes());
    messages.put(IFA_LOCAL, &ip).put(IFA_ADDRESS, &ip).put_u32(IFA_FLAGS, NODAD).end();
}

/// Appends an IPv4 address.
fn addr(messages: &mut Messages, index: u32, ip: [u8; 4], prefix: u8) {
    messages.make(RTM_NEWADDR).raw(&[libc::AF_INET as u8, prefix, 0, 0]).raw(&index.to_ne_bytes());
    messages.put(IFA_LOCAL, &ip).put(IFA_ADDRESS, &ip).end();
}

/// Appends a route by way of a gateway.
fn route(messages: &mut Messages, to: [u8; 4], prefix: u8, via: [u8; 4]) {
    const MAIN: u8 = libc::RT_TABLE_MAIN;
    messages.make(RTM_NEWROUTE).raw(&[libc::AF_INET as u8, prefix, 0, 0, MAIN, 84, 0, 1]).raw(&[0; 4]);
    if prefix > 0 {
        messages.put(RTA_DST, &to);
    }
    messages.put(RTA_GATEWAY, &via).end();
}

fn up(messages: &mut Messages, index: u32) {
    messages.begin(RTM_NEWLINK, 0).link(index, UP).end();
}

/// Asks for a link, which makes the kernel do what waits for its worker.
fn fence(messages: &mut Messages, index: u32) {
    messages.begin(RTM_GETLINK, 0).link(index, 0).end();
}

/// Appends a pair: the first end up, perhaps elsewhere and a port of a bridge, the second one in the namespace of the socket or elsewhere.
fn veth(messages: &mut Messages, first: End<'_>, second: End<'_>) {
    messages.make(RTM_NEWLINK).link(first.index, UP);
    first.attributes(messages);
    messages.nest(IFLA_LINKINFO, |messages| {
        messages.put_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |messages| {
            messages.nest(VETH_INFO_PEER, |messages| {
                messages.link(second.index, 0);
                second.attributes(messages);
            });
        });
    });
    messages.end();
}

/// One end of a pair.
struct End<'a> {
    name: &'a str,
    index: u32,
    mac: [u8; 6],
    netns: Option<&'a File>,
    bridge: Option<u32>,
}

impl End<'_> {
    fn attributes(&self, messages: &mut Messages) {
        messages.put_text(IFLA_IFNAME, self.name).put(IFLA_ADDRESS, &self.mac);
        messages.put_u32(IFLA_NUM_TX_QUEUES, 1).put_u32(IFLA_NUM_RX_QUEUES, 1);
        if let Some(netns) = self.netns {
            messages.put_u32(IFLA_NET_NS_FD, netns.as_raw_fd().unsigned_abs());
        }
        if let Some(bridge) = self.bridge {
            messages.put_u32(IFLA_MASTER, bridge);
        }
    }
}

/// Builds a job and leaves it there by the names of its namespaces.
pub(crate) fn build(job: Job, n: usize) -> io::Result<()> {
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(files)?;
    nix::sys::resource::setrlimit(files, hard, hard)?;
    if job == Job::Star { star(n) } else { chain(n) }
}

/// Lets go of everything; the kernel goes on with it.
pub(crate) fn remove(job: Job, n: usize) -> io::Result<()> {
    let (host, mut messages) = (Socket::open()?, Messages::default());
    let bridges = 0..if job == Job::Star { bridges(n) } else { 0 };
    // Each port that leaves a bridge that is up makes the kernel look at all the others.
    for bridge in bridges.clone() {
        messages.begin(RTM_NEWLINK, 0).change_flags(bridge_index(bridge), 0, UP).end();
        host.send(&mut messages)?;
    }
    for i in 0..namespaces_of(job, n) {
        let path = CString::new(path_of(i)).map_err(io::Error::other)?;
        nix::mount::umount2(path.as_c_str(), nix::mount::MntFlags::MNT_DETACH)?;
        std::fs::remove_file(path_of(i))?;
    }
    for bridge in bridges {
        messages.begin(RTM_DELLINK, 0).link(bridge_index(bridge), 0).end();
        host.send(&mut messages)?;
    }
    Ok(())
}

fn bridge_index(number: usize) -> u32 {
    FIRST_INDEX + u32::try_from(number).unwrap_or(0)
}

/// Ends the message of a bridge with whether it looks into multicast.
fn snooping(messages: &mut Messages, on: u8) {
    messages.nest(IFLA_LINKINFO, |messages| {
        messages.put_text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |messages| {
            messages.put(IFLA_BR_MCAST_SNOOPING, &[on]);
        });
    });
    messages.end();
}

/// Builds a star: bridges here, with `n` hosts on them.
fn star(n: usize) -> io::Result<()> {
    let made = namespaces(n, 0..0);
    let (host, here) = (Socket::open()?, File::open("/proc/thread-self/ns/net")?);
    let mut messages = Messages::default();
    for bridge in 0..bridges(n) {
        let index = bridge_index(bridge);
        let [.., third, fourth] = index.to_be_bytes();
        messages.make(RTM_NEWLINK).link(index, 0).put_text(IFLA_IFNAME, &format!("sw{bridge}"));
        messages.put(IFLA_ADDRESS, &[2, 0xf1, 0, 0, third, fourth]);
        snooping(&mut messages, 0);
        addr(&mut messages, index, gateway(bridge), 16);
        host.send(&mut messages)?;
    }
    let first_port = bridge_index(bridges(n));
    for i in 0..n {
        let netns = made.recv().map_err(io::Error::other)??;
        let number = u32::try_from(i).map_err(io::Error::other)? + 1;
        let bridge = i / PORTS_EACH;
        let (port, eth0) = (first_port + number - 1, FIRST_INDEX);
        let name = format!("h{number}-eth0");
        veth(
            &mut messages,
            End {
                name: &name,
                index: port,
                mac: mac(2 * number),
                netns: Some(&here),
                bridge: Some(bridge_index(bridge)),
            },
            End { name: "eth0", index: eth0, mac: mac(2 * number + 1), netns: None, bridge: None },
        );
        up(&mut messages, 1);
        link_local(&mut messages, eth0, mac(2 * number + 1));
        up(&mut messages, eth0);
        addr(&mut messages, eth0, host_address(i), 16);
        route(&mut messages, [0; 4], 0, gateway(bridge));
        // Now and not at the end, when the kernel is busy with what follows the bridge's coming up.
        fence(&mut messages, eth0);
        netns.socket.send(&mut messages)?;
        fence(&mut messages, port);
        host.send(&mut messages)?;
    }
    for bridge in 0..bridges(n) {
        let index = bridge_index(bridge);
        let [.., third, fourth] = index.to_be_bytes();
        link_local(&mut messages, index, [2, 0xf1, 0, 0, third, fourth]);
        messages.begin(RTM_NEWLINK, 0).link(index, 0);
        snooping(&mut messages, 1);
        up(&mut messages, index);
        host.send(&mut messages)?;
    }
    for bridge in 0..bridges(n) {
        fence(&mut messages, bridge_index(bridge));
        host.send(&mut messages)?;
    }
    Ok(())
}

/// Builds a chain: `n` routers in a row between two hosts, each with a route to either host's network.
fn chain(n: usize) -> io::Result<()> {
    let made = namespaces(n + 2, 1..n + 1);
    let mut messages = Messages::default();
    let (left, right) = (FIRST_INDEX, FIRST_INDEX + 1);
    // Link k joins node k and node k + 1; the hosts are the first and the last node.
    let on_link = |k: usize, end: u8| {
        let [high, low] = u16::try_from(k).unwrap_or(0).to_be_bytes();
        [10, high, low, end]
    };
    let mut nodes: Vec<Netns> = Vec::with_capacity(n + 2);
    for i in 0..n + 2 {
        let netns = made.recv().map_err(io::Error::other)??;
        up(&mut messages, 1);
        if let Some(before) = nodes.last() {
            let number = u32::try_from(i).map_err(io::Error::other)?;
            veth(
                &mut messages,
                End { name: "left", index: left, mac: mac(2 * number), netns: None, bridge: None },
                End { name: "right", index: right, mac: mac(2 * number + 1), netns: Some(&before.file), bridge: None },
            );
            link_local(&mut messages, left, mac(2 * number));
            addr(&mut messages, left, on_link(i - 1, 2), 24);
            if i > n {
                route(&mut messages, [0; 4], 0, on_link(i - 1, 1));
            }
            netns.socket.send(&mut messages)?;
            link_local(&mut messages, right, mac(2 * number + 1));
            up(&mut messages, right);
            addr(&mut messages, right, on_link(i - 1, 1), 24);
            if i == 1 {
                route(&mut messages, [0; 4], 0, on_link(0, 2));
            }
            if i > 2 {
                route(&mut messages, on_link(0, 0), 24, on_link(i - 2, 1));
            }
            if i > 1 && i <= n {
                route(&mut messages, on_link(n, 0), 24, on_link(i - 1, 2));
            }
            before.socket.send(&mut messages)?;
        } else {
            netns.socket.send(&mut messages)?;
        }
        nodes.push(netns);
    }
    for (i, netns) in nodes.iter().enumerate() {
        for (index, there) in [(left, i > 0), (right, i < n + 1)] {
            if there {
                fence(&mut messages, index);
                netns.socket.send(&mut messages)?;
            }
        }
    }
    Ok(())
}
