use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrStorage, sendmsg, socketpair,
};
use std::os::fd::{AsRawFd, OwnedFd};

use super::*;
use crate::net::AddrOptions;
use crate::net::ip::addr;
use crate::net::testing::{block_on, in_own_process, netns, netns_and_rtnl};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs a test in a process of its own: a child that another test forks has its sockets too, until its own program runs.
fn alone(test: &str, does: impl FnOnce()) {
    in_own_process(&format!("net::port::tests::{test}"), does);
}

/// Makes a socket that is bound in the namespace, without SO_REUSEADDR.
fn bound(netns: &Netns, proto: Proto, address: &str) -> Socket {
    let address: SocketAddr = address.parse().expect("an address with its port");
    netns.inside(|| bind(proto, address.ip(), false, address.port())).expect("inside").expect("bound")
}

fn listening(netns: &Netns, address: &str) -> Socket {
    let socket = bound(netns, Proto::Tcp, address);
    socket.listen(5).expect("listening");
    socket
}

/// Checks one port and says what came of it, in the words that a user sees.
fn checked(netns: &Netns, proto: Proto, at: Option<&str>, port: u16) -> String {
    match check_free(netns, &[Wanted { proto, at: at.map(ip), ports: port..=port }]) {
        Ok(()) => "free".to_string(),
        Err(refusal) => refusal.to_string(),
    }
}

/// What is said of a port that this process has.
fn ours(proto: Proto, address: &str) -> String {
    let comm = fs::read_to_string("/proc/self/comm").expect("our name");
    let port = address.rsplit(':').next().expect("a port");
    format!("{proto} port {port} is in use at `{address}` by `{}` (process {})", comm.trim_end(), std::process::id())
}

/// Sends a socket on its way from one process to another: it is in nobody's hands then, until what is returned goes.
fn on_its_way(socket: Socket) -> OwnedFd {
    let (one, other) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    let fds = [socket.as_raw_fd()];
    let passed = [ControlMessage::ScmRights(&fds)];
    let text = [std::io::IoSlice::new(b"x")];
    sendmsg::<SockaddrStorage>(one.as_raw_fd(), &text, &passed, MsgFlags::empty(), None).expect("sent");
    other
}

#[test]
fn a_listener_is_named_whichever_addresses_meet() {
    alone("a_listener_is_named_whichever_addresses_meet", || {
        block_on(async {
            let (netns, rtnl) = netns_and_rtnl();
            for text in ["10.0.0.1/24", "fd00::1/64"] {
                let options = AddrOptions { nodad: true, ..AddrOptions::default() };
                addr::add(&rtnl, 1, text.parse().expect("a network"), &options).expect("added");
            }
            let wanted = [None, Some("0.0.0.0"), Some("10.0.0.1"), Some("127.0.0.1"), Some("::"), Some("fd00::1")];
            for proto in [Proto::Tcp, Proto::Udp] {
                for (listener, in_the_way) in [
                    // Of IPv6 it takes IPv4 as well.
                    ("[::]:80", [true, true, true, true, true, true]),
                    ("0.0.0.0:80", [true, true, true, true, false, false]),
                    ("10.0.0.1:80", [true, true, true, false, false, false]),
                    ("[fd00::1]:80", [true, false, false, false, true, true]),
                ] {
                    let socket = bound(&netns, proto, listener);
                    if proto == Proto::Tcp {
                        socket.listen(5).expect("listening");
                    }
                    for (at, in_the_way) in wanted.iter().zip(in_the_way) {
                        let expected = if in_the_way { ours(proto, listener) } else { "free".to_string() };
                        assert_eq!(checked(&netns, proto, *at, 80), expected, "{listener} {at:?}");
                        assert_eq!(checked(&netns, proto, *at, 81), "free");
                    }
                    drop(socket);
                    assert_eq!(checked(&netns, proto, None, 80), "free", "{proto} {listener}");
                }
            }
        })
    });
}

#[test]
fn of_two_families_one_may_be_free() {
    let netns = netns();
    let only_v6 = netns.inside(|| bind(Proto::Tcp, ip("::"), true, 80)).expect("inside").expect("bound");
    only_v6.listen(5).expect("listening");
    assert_eq!(checked(&netns, Proto::Tcp, Some("0.0.0.0"), 80), "free");
    assert_eq!(checked(&netns, Proto::Tcp, Some("::"), 80), ours(Proto::Tcp, "[::]:80"));
    assert_eq!(checked(&netns, Proto::Tcp, None, 80), ours(Proto::Tcp, "[::]:80"));
}

#[test]
fn one_protocol_and_one_namespace_are_no_others() {
    alone("one_protocol_and_one_namespace_are_no_others", || {
        let (netns, other) = (netns(), netns());
        let _listener = listening(&netns, "0.0.0.0:80");
        assert_eq!(checked(&netns, Proto::Udp, None, 80), "free");
        assert_eq!(checked(&other, Proto::Tcp, None, 80), "free");
        // This machine may have no SCTP at all; then nobody has a port of it.
        assert_eq!(checked(&netns, Proto::Sctp, None, 80), "free");
    });
}

#[test]
fn a_socket_that_reuses_addresses_does_not_hide() {
    let netns = netns();
    for proto in [Proto::Tcp, Proto::Udp] {
        let socket = netns.inside(|| {
            let (kind, number) = if proto == Proto::Tcp { (Type::STREAM, 6) } else { (Type::DGRAM, 17) };
            let socket = Socket::new(Domain::IPV4, kind, Some(number.into())).expect("a socket");
            socket.set_reuse_address(true).expect("set");
            socket.set_reuse_port(true).expect("set");
            socket.bind(&SockAddr::from(SocketAddr::new(ip("0.0.0.0"), 80))).expect("bound");
            socket
        });
        let socket = socket.expect("inside");
        if proto == Proto::Tcp {
            socket.listen(5).expect("listening");
        }
        assert_eq!(checked(&netns, proto, None, 80), ours(proto, "0.0.0.0:80"));
    }
}

/// Of several sockets at a port one is named that a process has, whichever comes first in the kernel's table.
#[test]
fn of_several_sockets_one_with_an_owner_is_named() {
    alone("of_several_sockets_one_with_an_owner_is_named", || {
        let netns = netns();
        for (passing, stays) in [("127.0.0.1:80", "127.0.0.2:80"), ("127.0.0.2:80", "127.0.0.1:80")] {
            let _passing = on_its_way(listening(&netns, passing));
            let _stays = listening(&netns, stays);
            assert_eq!(checked(&netns, Proto::Tcp, None, 80), ours(Proto::Tcp, stays));
        }
    });
}

/// The server closes first, so its port has the connection in TIME_WAIT: bind(2) refuses it then, unless both sockets have
/// SO_REUSEADDR, and for no reason that concerns a server.
#[test]
fn a_connection_that_has_ended_leaves_the_port_free() {
    alone("a_connection_that_has_ended_leaves_the_port_free", || {
        let netns = netns();
        let server = listening(&netns, "127.0.0.1:80");
        let client = netns.inside(|| std::net::TcpStream::connect(("127.0.0.1", 80))).expect("inside");
        let mut client = client.expect("connected");
        let accepted = server.accept().expect("accepted");
        drop(server);
        assert_eq!(
            checked(&netns, Proto::Tcp, None, 80),
            ours(Proto::Tcp, "127.0.0.1:80"),
            "a connection that somebody has"
        );
        drop(accepted);
        assert_eq!(client.read(&mut [0]).expect("its end"), 0);
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(10);
        let states =
            || netns.inside(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("inside").expect("a table");
        // State 6 of include/net/tcp_states.h.
        while !states().contains("0100007F:0050 0100007F") || !states().contains(" 06 ") {
            assert!(Instant::now() < deadline, "{}", states());
            std::thread::yield_now();
        }
        let again =
            netns.inside(|| bind(Proto::Tcp, ip("127.0.0.1"), false, 80)).expect("inside").expect_err("TIME_WAIT");
        assert_eq!(again.raw_os_error(), Some(libc::EADDRINUSE));
        for at in [None, Some("127.0.0.1"), Some("0.0.0.0")] {
            assert_eq!(checked(&netns, Proto::Tcp, at, 80), "free", "{at:?}");
        }
        // A listener beside it is found.
        let listener = netns.inside(|| bind(Proto::Tcp, ip("127.0.0.2"), false, 80)).expect("inside").expect("bound");
        listener.listen(5).expect("listening");
        assert_eq!(checked(&netns, Proto::Tcp, None, 80), ours(Proto::Tcp, "127.0.0.2:80"));
        assert_eq!(checked(&netns, Proto::Tcp, Some("127.0.0.1"), 80), "free");
    });
}

#[test]
fn where_the_owner_cannot_be_found_it_says_so() {
    alone("where_the_owner_cannot_be_found_it_says_so", || {
        const NOBODY: &str = "by the kernel, or by a process that can't be looked at";
        let netns = netns();
        let passing = on_its_way(listening(&netns, "0.0.0.0:80"));
        let said = checked(&netns, Proto::Tcp, None, 80);
        assert_eq!(said, format!("TCP port 80 is in use at `0.0.0.0:80` {NOBODY}"));
        drop(passing);
        assert_eq!(checked(&netns, Proto::Tcp, None, 80), "free");
        // One that is bound and does not listen is in no table.
        let _bound = bound(&netns, Proto::Tcp, "127.0.0.1:80");
        assert_eq!(checked(&netns, Proto::Tcp, None, 80), format!("TCP port 80 is in use {NOBODY}"));
        assert_eq!(checked(&netns, Proto::Tcp, Some("127.0.0.2"), 80), "free");
    });
}

#[test]
fn the_first_of_many_is_named_and_many_are_quick() {
    alone("the_first_of_many_is_named_and_many_are_quick", || {
        let netns = netns();
        let fds = || fs::read_dir("/proc/self/fd").expect("our descriptors").count();
        let (listener, before) = (listening(&netns, "127.0.0.1:61000"), fds());
        let began = Instant::now();
        for proto in [Proto::Tcp, Proto::Udp] {
            check_free(&netns, &[Wanted { proto, at: None, ports: 1..=60000 }]).expect("all free");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        match check_free(&netns, &[Wanted { proto: Proto::Tcp, at: None, ports: 60900..=65535 }]) {
            Err(PortRefusal::InUse(PortInUse { port: 61000, owner: Some(owner), .. })) => {
                assert_eq!(owner.pid, std::process::id());
            }
            other => unreachable!("{other:?}"),
        }
        drop(listener);
        check_free(&netns, &[Wanted { proto: Proto::Tcp, at: None, ports: 60900..=65535 }])
            .expect("all free, the last port too");
        // Other tests open and close theirs meanwhile: 60000 that stayed open would tell.
        assert!(fds() < before + 1000, "{} descriptors, {before} before", fds());
    });
}

#[test]
fn an_address_of_others_is_its_own_case() {
    let netns = netns();
    for text in ["192.0.2.1", "2001:db8::1"] {
        match check_free(&netns, &[Wanted { proto: Proto::Tcp, at: Some(ip(text)), ports: 80..=90 }]) {
            Err(PortRefusal::NotHere(at)) => assert_eq!(at, ip(text)),
            other => unreachable!("{other:?}"),
        }
        assert_eq!(checked(&netns, Proto::Udp, Some(text), 80), format!("`{text}` is no address of this netns"));
    }
}

#[test]
fn the_tables_are_read_as_the_kernel_writes_them() {
    let line =
        "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 ffff 100";
    let here = if cfg!(target_endian = "little") { "127.0.0.1" } else { "1.0.0.127" };
    assert_eq!(socket(line), Some((8080, vec![BoundSocket { at: ip(here), inode: 4711 }])));
    assert_eq!(socket("  sl  local_address rem_address   st tx_queue"), None);
    assert_eq!(socket("   1: 0100007:1F90 0:0 0A"), None);
    let line = "ffff9a81 ffff9a82 2   10  29     3868  0      4712  10.0.0.1 fd00::1";
    let both = ["10.0.0.1", "fd00::1"].map(|text| BoundSocket { at: ip(text), inode: 4712 });
    assert_eq!(endpoint(line), Some((3868, both.to_vec())));
}
