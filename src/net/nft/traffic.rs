//! Port mappings with live traffic: the rules and maps that a network publishes ports with.
//!
//! ```text
//! far(eth0 192.0.2.2) -- (wan 192.0.2.1)host(br0 10.0.0.1) -+- web(eth0 10.0.0.2)
//!                                                           +- mate(eth0 10.0.0.3)
//! ```

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::conntrack::{self, Flow};
use super::tests::{TABLE, base, chain, element, ip, map_v4, net};
use super::*;
use crate::net::netns::sysctl;
use crate::net::testing::{block_on, netns, pair, said};
use crate::net::{BridgeOptions, Mac, Netlink, Netns, NewLink};

/// How long a packet may take that arrives; one that does not is waited for shorter.
pub(super) const ARRIVES: Duration = Duration::from_secs(5);
pub(super) const IS_LOST: Duration = Duration::from_millis(300);

/// The mark of connections that go back out where they came in.
const HAIRPIN: u32 = 0x100;

pub(super) struct Site {
    pub(super) far: Netns,
    pub(super) host: Netns,
    pub(super) web: Netns,
    pub(super) mate: Netns,
}

impl Site {
    /// Builds it; `bridge_nf` is net.bridge.bridge-nf-call-iptables of the host.
    pub(super) fn new(bridge_nf: bool) -> Site {
        let site = Site { far: netns(), host: netns(), web: netns(), mate: netns() };
        // A router whose link-local address is tentative drops what it should forward (RFC 4862, 5.4).
        for netns in [&site.far, &site.host, &site.web, &site.mate] {
            for key in ["net.ipv6.conf.all.accept_dad", "net.ipv6.conf.default.accept_dad"] {
                sysctl::write(netns, key, "0").expect(key);
            }
        }
        block_on(async {
            let rtnl = Netlink::open(&site.host).expect("a socket");
            let bridge = NewLink { name: "br0", index: 1000, mac: Mac::local(1000), mtu: None };
            crate::net::link::bridge::add_bridge(&rtnl, &bridge, &BridgeOptions::default()).expect("a bridge");
            for (at, (name, netns)) in
                [("wan", &site.far), ("p2", &site.web), ("p3", &site.mate)].into_iter().enumerate()
            {
                let index = 1001 + at as u32 * 2;
                pair(&rtnl, (&site.host, name, index), (netns, "eth0", index + 1)).await;
            }
        });
        let batch = "
            link set br0 up
            link set wan up
            link set p2 up master br0
            link set p3 up master br0
            link set p2 type bridge_slave hairpin on
            link set p3 type bridge_slave hairpin on
            addr add 192.0.2.1/24 dev wan
            addr add 2001:db8::1/64 dev wan nodad
            addr add 10.0.0.1/24 dev br0
            addr add fd00::1/64 dev br0 nodad";
        said(&site.host, "ip -batch -", batch);
        for (netns, at, v4, v6) in
            [(&site.far, 2, "192.0.2", "2001:db8"), (&site.web, 2, "10.0.0", "fd00"), (&site.mate, 3, "10.0.0", "fd00")]
        {
            let batch = format!(
                "link set eth0 up\naddr add {v4}.{at}/24 dev eth0\naddr add {v6}::{at}/64 dev eth0 nodad
                route add default via {v4}.1\nroute add default via {v6}::1"
            );
            said(netns, "ip -batch -", &batch);
        }
        let nf = if bridge_nf { "1" } else { "0" };
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.br0.route_localnet", "1"),
            ("net.bridge.bridge-nf-call-iptables", nf),
            ("net.bridge.bridge-nf-call-ip6tables", nf),
        ] {
            sysctl::write(&site.host, key, value).expect(key);
        }
        site
    }
}

/// Servers of TCP and UDP that answer with their name and the address that they see. They end with this.
pub(super) struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a server ends");
        }
    }
}

impl Servers {
    pub(super) fn start(netns: &Netns, name: &'static str, at: &[SocketAddr]) -> Servers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for at in at {
            let open = || (TcpListener::bind(at).expect("a listener"), UdpSocket::bind(at).expect("a socket"));
            let (tcp, udp) = netns.inside(open).expect("inside");
            let look_up_every = Some(Duration::from_millis(20));
            SockRef::from(&tcp).set_read_timeout(look_up_every).expect("set");
            udp.set_read_timeout(look_up_every).expect("set");
            let ends = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !ends.load(SeqCst) {
                    if let Ok((mut stream, peer)) = tcp.accept() {
                        // The client may be gone, which is for it to tell.
                        let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes());
                    }
                }
            }));
            let ends = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !ends.load(SeqCst) {
                    if let Ok((_, peer)) = udp.recv_from(&mut [0; 64]) {
                        let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
                    }
                }
            }));
        }
        Servers { stop, threads }
    }
}

/// Returns what a server says to somebody in `netns`; none if nobody is there.
pub(super) fn answer(netns: &Netns, proto: L4Proto, to: &str, within: Duration) -> Option<String> {
    let to: SocketAddr = to.parse().expect("an address and a port");
    let ask = || -> std::io::Result<String> {
        let mut bytes = Vec::new();
        match proto {
            L4Proto::Tcp => {
                let mut stream = TcpStream::connect_timeout(&to, within)?;
                stream.set_read_timeout(Some(within))?;
                stream.read_to_end(&mut bytes)?;
            }
            _ => {
                let any: IpAddr = if to.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_read_timeout(Some(within))?;
                socket.connect(to)?;
                socket.send(b"?")?;
                bytes.resize(64, 0);
                let length = socket.recv(&mut bytes)?;
                bytes.truncate(length);
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    netns.inside(ask).expect("inside").ok()
}

/// Adds the table that publishes ports, with empty maps.
pub(super) fn publishing(batch: &mut Batch) {
    let add =
        |batch: &mut Batch, chain: &str, rule: Rule| _ = batch.add_rule(Family::Inet, TABLE, chain, &rule, At::End);
    batch.create_table(Family::Inet, TABLE, None);
    for (version, addr, map, map_at) in
        [(IpVersion::V4, Field::Ipv4, "v4", "v4_at"), (IpVersion::V6, Field::Ipv6, "v6", "v6_at")]
    {
        let set = |name: &str, key: Vec<Field>| Set {
            name: name.into(),
            key,
            data: Some(vec![addr, Field::Port]),
            ..map_v4("")
        };
        batch.add_set(&set(map, vec![Field::Proto, Field::Port]));
        batch.add_set(&set(map_at, vec![Field::Proto, addr, Field::Port]));
        if version == IpVersion::V4 {
            batch.add_chain(&chain("published", None));
        }
        for (key, map) in [(DnatKey::ProtoAddrPort, map_at), (DnatKey::ProtoPort, map)] {
            let action = Action::DnatByMap { family: version, key, map: map.into() };
            add(batch, "published", Rule::new(Vec::new(), action));
        }
    }
    for (name, kind, hook, priority) in [
        ("raw", ChainKind::Filter, Hook::Prerouting, -300),
        ("prerouting", ChainKind::Nat, Hook::Prerouting, -100),
        ("output", ChainKind::Nat, Hook::Output, -100),
        ("forward", ChainKind::Filter, Hook::Forward, 0),
        ("postrouting", ChainKind::Nat, Hook::Postrouting, 100),
    ] {
        batch.add_chain(&base(name, kind, hook, priority, Policy::Accept));
    }
    let localhost = net("127.0.0.0/8");
    let from_outside = vec![Match::InDev { name: "lo".into(), not: true }, Match::Dst { net: localhost, not: false }];
    add(batch, "raw", Rule { counter: true, ..Rule::new(from_outside, Action::Drop) });
    for chain in ["prerouting", "output"] {
        add(batch, chain, Rule::new(vec![Match::DaddrLocal], Action::Jump("published".into())));
    }
    let back_out = vec![Match::CtState(vec![CtState::New]), Match::CtStatusDnat, Match::DaddrReachedByIn];
    add(batch, "forward", Rule { counter: true, ..Rule::new(back_out, Action::SetMarkBits(HAIRPIN)) });
    add(batch, "postrouting", Rule::new(vec![Match::CtStatusDnat, Match::MarkBits(HAIRPIN)], Action::Masquerade));
    let by_localhost = vec![Match::Src { net: localhost, not: false }, Match::CtStatusDnat];
    add(batch, "postrouting", Rule::new(by_localhost, Action::Masquerade));
}

fn element_at(proto: L4Proto, at: &str, port: u16, to: &str, to_port: u16) -> Element {
    let key = vec![Value::Proto(proto), Value::Ip(ip(at)), Value::Port(port)];
    Element { key, data: Some(vec![Value::Ip(ip(to)), Value::Port(to_port)]), comment: None }
}

/// Port 8080 of all the host's addresses and port 8081 of two of them lead to port 80 of `web`: for everybody, by TCP and
/// UDP, by IPv4 and IPv6, with bridged packets seen by nf_tables or not.
#[test]
fn a_published_port_is_reached_from_everywhere() {
    for bridge_nf in [false, true] {
        let site = Site::new(bridge_nf);
        let at = ["10.0.0.2:80", "[fd00::2]:80"].map(|at| at.parse().expect("an address"));
        let _web = Servers::start(&site.web, "web", &at);
        let mut batch = Batch::new();
        publishing(&mut batch);
        batch.commit(&site.host).expect("committed");
        let asked = answer(&site.far, L4Proto::Tcp, "192.0.2.1:8080", IS_LOST);
        assert_eq!(asked, None, "nothing is published yet");
        let mut batch = Batch::new();
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            let mut add = |map, element| _ = batch.add_elements(Family::Inet, TABLE, map, &[element], true);
            add("v4", element(proto, 8080, "10.0.0.2", 80));
            add("v6", element(proto, 8080, "fd00::2", 80));
            add("v4_at", element_at(proto, "192.0.2.1", 8081, "10.0.0.2", 80));
            add("v6_at", element_at(proto, "2001:db8::1", 8081, "fd00::2", 80));
        }
        batch.commit(&site.host).expect("committed");
        for proto in [L4Proto::Tcp, L4Proto::Udp] {
            for (who, netns, to, seen) in [
                ("outside", &site.far, "192.0.2.1:8080", "web 192.0.2.2"),
                ("outside", &site.far, "192.0.2.1:8081", "web 192.0.2.2"),
                ("outside", &site.far, "[2001:db8::1]:8080", "web 2001:db8::2"),
                ("outside", &site.far, "[2001:db8::1]:8081", "web 2001:db8::2"),
                ("the host", &site.host, "192.0.2.1:8080", "web 192.0.2.1"),
                ("the host", &site.host, "192.0.2.1:8081", "web 192.0.2.1"),
                ("the host", &site.host, "10.0.0.1:8080", "web 10.0.0.1"),
                ("the host", &site.host, "127.0.0.1:8080", "web 10.0.0.1"),
                ("the host", &site.host, "[2001:db8::1]:8081", "web 2001:db8::1"),
                ("itself", &site.web, "192.0.2.1:8080", "web 10.0.0.1"),
                ("itself", &site.web, "10.0.0.1:8080", "web 10.0.0.1"),
                ("itself", &site.web, "[2001:db8::1]:8080", "web fd00::1"),
                ("a neighbour", &site.mate, "192.0.2.1:8080", "web 10.0.0.1"),
                ("a neighbour", &site.mate, "10.0.0.1:8080", "web 10.0.0.1"),
                ("a neighbour", &site.mate, "[2001:db8::1]:8081", "web fd00::1"),
                ("a neighbour, directly", &site.mate, "10.0.0.2:80", "web 10.0.0.3"),
            ] {
                let said = answer(netns, proto, to, ARRIVES);
                assert_eq!(said.as_deref(), Some(seen), "{who} to {to} by {proto}, bridge-nf {bridge_nf}");
            }
            // Not the host's own address, and a port that is published at another one.
            for to in ["10.0.0.1:8081", "10.0.0.3:8080"] {
                assert_eq!(answer(&site.host, proto, to, IS_LOST), None, "{to} by {proto}");
            }
        }
        let rules = list_rules(&site.host, Family::Inet, TABLE).expect("listed");
        let counted = |chain: &str| {
            let rule = rules.iter().find(|rule| rule.at.chain == chain).expect("a rule");
            rule.counter.expect("a counter").packets
        };
        assert!(counted("forward") > 0 && counted("raw") == 0, "{rules:?}");
    }
}

/// With route_localnet a neighbour could reach what listens on the host's 127.0.0.1.
#[test]
fn nobody_else_reaches_the_hosts_127_0_0_1() {
    let site = Site::new(false);
    let at = "127.0.0.1:9".parse().expect("an address");
    let _private = Servers::start(&site.host, "private", &[at]);
    let batch = "addr del 127.0.0.1/8 dev lo\nroute add 127.0.0.0/8 via 10.0.0.1 src 10.0.0.3";
    said(&site.mate, "ip -batch -", batch);
    sysctl::write(&site.mate, "net.ipv4.conf.eth0.route_localnet", "1").expect("written");
    let asked = |time| answer(&site.mate, L4Proto::Udp, "127.0.0.1:9", time);
    assert_eq!(asked(ARRIVES).as_deref(), Some("private 10.0.0.3"), "the danger is real");
    let mut batch = Batch::new();
    publishing(&mut batch);
    batch.commit(&site.host).expect("committed");
    assert_eq!(asked(IS_LOST), None);
    let rules = list_rules(&site.host, Family::Inet, TABLE).expect("listed");
    let raw = rules.iter().find(|rule| rule.at.chain == "raw").expect("a rule");
    assert!(raw.counter.is_some_and(|counter| counter.packets == 1 && counter.bytes > 20), "{raw:?}");
    assert_eq!(answer(&site.host, L4Proto::Udp, "127.0.0.1:9", ARRIVES).as_deref(), Some("private 127.0.0.1"));
}

/// What is refused, dropped and counted, by policy and by rule.
#[test]
fn filters_do_what_they_say() {
    let site = Site::new(false);
    let at = "10.0.0.2:80".parse().expect("an address");
    let _web = Servers::start(&site.web, "web", &[at]);
    let ask = |within| answer(&site.far, L4Proto::Tcp, "10.0.0.2:80", within);
    assert_eq!(ask(ARRIVES).as_deref(), Some("web 192.0.2.2"));
    let with = |policy, rules: &[Rule]| {
        let mut batch = Batch::new();
        batch.add_table(Family::Inet, TABLE, None).delete_table(Family::Inet, TABLE);
        batch.add_table(Family::Inet, TABLE, None);
        batch.add_chain(&base("forward", ChainKind::Filter, Hook::Forward, 0, policy));
        for rule in rules {
            batch.add_rule(Family::Inet, TABLE, "forward", rule, At::End);
        }
        batch.commit(&site.host).expect("committed");
    };
    let port = |from, to| vec![Match::L4Proto(L4Proto::Tcp), Match::DstPort(PortRange { from, to })];
    let answered = Rule::new(vec![Match::CtState(vec![CtState::Established])], Action::Accept);
    with(Policy::Drop, &[]);
    assert_eq!(ask(IS_LOST), None, "the policy");
    with(Policy::Drop, &[answered.clone(), Rule::new(port(80, 90), Action::Accept)]);
    assert!(ask(ARRIVES).is_some(), "the first of a range");
    with(Policy::Drop, &[answered.clone(), Rule::new(port(70, 80), Action::Accept)]);
    assert!(ask(ARRIVES).is_some(), "the last of a range");
    with(Policy::Drop, &[answered.clone(), Rule::new(port(81, 90), Action::Accept)]);
    assert_eq!(ask(IS_LOST), None, "beside a range");
    with(Policy::Accept, &[Rule { counter: true, ..Rule::new(port(80, 80), Action::Reject) }]);
    let far = site.far.clone();
    let refused = far.inside(|| TcpStream::connect_timeout(&at, ARRIVES).expect_err("refused").kind());
    assert_eq!(refused.expect("inside"), std::io::ErrorKind::ConnectionRefused);
    let rules = list_rules(&site.host, Family::Inet, TABLE).expect("listed");
    let counter = rules[0].counter.expect("a counter");
    assert!(counter.packets == 1 && counter.bytes == 60, "one SYN: {counter:?}");
    let from = |text| Match::Src { net: net(text), not: false };
    with(Policy::Accept, &[Rule::new(vec![from("192.0.2.4/30")], Action::Drop)]);
    assert!(ask(ARRIVES).is_some(), "another network");
    with(Policy::Accept, &[Rule::new(vec![from("192.0.2.0/30")], Action::Drop)]);
    assert_eq!(ask(IS_LOST), None, "its network");
}

/// A sender of UDP that never stops goes on to where its first packet went, until its connection is forgotten.
#[test]
fn a_udp_flow_follows_the_mapping_after_a_flush() {
    let site = Site::new(false);
    let at = |at: &str| [at.parse().expect("an address")];
    let _host = Servers::start(&site.host, "host", &at("192.0.2.1:8080"));
    let _web = Servers::start(&site.web, "web", &at("10.0.0.2:80"));
    let _mate = Servers::start(&site.mate, "mate", &at("10.0.0.3:80"));
    let mut batch = Batch::new();
    publishing(&mut batch);
    batch.commit(&site.host).expect("committed");
    let open = || {
        let socket = UdpSocket::bind("192.0.2.2:5000").expect("a socket");
        socket.connect("192.0.2.1:8080").expect("connected");
        socket.set_read_timeout(Some(ARRIVES)).expect("set");
        socket
    };
    let socket = site.far.inside(open).expect("inside");
    let ask = || {
        let mut bytes = [0; 64];
        socket.send(b"?").expect("sent");
        let length = socket.recv(&mut bytes).expect("an answer");
        String::from_utf8_lossy(&bytes[..length]).split(' ').next().expect("a name").to_string()
    };
    assert_eq!(ask(), "host");
    let publish = |to| {
        let mut batch = Batch::new();
        batch.add_elements(Family::Inet, TABLE, "v4", &[element(L4Proto::Udp, 8080, to, 80)], true);
        batch.commit(&site.host).expect("committed");
    };
    let withdraw = || {
        let mut batch = Batch::new();
        batch.delete_elements(Family::Inet, TABLE, "v4", &[element(L4Proto::Udp, 8080, "10.0.0.2", 80)]);
        batch.commit(&site.host).expect("committed");
    };
    let flush = |flows: &[Flow]| conntrack::flush(&site.host, flows).expect("flushed");
    let to = |proto, port, at: Option<&str>| Flow::To { proto, port, ip: at.map(ip) };
    publish("10.0.0.2");
    assert_eq!(ask(), "host", "as before the mapping");
    let others = [to(L4Proto::Tcp, 8080, None), to(L4Proto::Udp, 8081, None), to(L4Proto::Udp, 8080, Some("10.0.0.1"))];
    assert_eq!((flush(&[]), flush(&others)), (0, 0));
    assert_eq!(ask(), "host", "others were flushed");
    assert_eq!(flush(&[to(L4Proto::Udp, 8080, Some("192.0.2.1"))]), 1);
    assert_eq!(ask(), "web");
    withdraw();
    publish("10.0.0.3");
    assert_eq!(ask(), "web", "as before the change");
    let answered_by = |at| Flow::AnsweredBy { proto: L4Proto::Udp, port: 80, ip: ip(at) };
    assert_eq!(flush(&[answered_by("10.0.0.3")]), 0);
    assert_eq!(flush(&[answered_by("10.0.0.2"), to(L4Proto::Udp, 8080, None)]), 1);
    assert_eq!(ask(), "mate");
    withdraw();
    assert_eq!(ask(), "mate", "as before the end of the mapping");
    assert_eq!(flush(&[to(L4Proto::Udp, 8080, None)]), 1);
    assert_eq!(ask(), "host");
}
