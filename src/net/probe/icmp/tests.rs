use super::*;
use crate::net::ip::{addr, route};
use crate::net::netns::sysctl;
use crate::net::testing::{block_on, netns, netns_and_rtnl, pair};
use crate::net::{AddrOptions, Change, Netlink, Route, RouteKind, link};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Sets the link up and gives it addresses.
async fn equip(rtnl: &Netlink, index: u32, addresses: &[&str]) {
    link::change(rtnl, index, &Change { up: Some(true), ..Change::default() }).expect("up");
    for text in addresses {
        let options = AddrOptions { nodad: true, ..AddrOptions::default() };
        addr::add(rtnl, index, text.parse().expect("a network"), &options).expect("added");
    }
}

struct Lab {
    a: Netns,
    r: Netns,
    _b: Netns,
}

/// a(10.0.0.1 fd00::1 fe80::a) -- (10.0.0.254 fd00::fe fe80::b)r(10.1.0.254 fd01::fe) -- b(10.1.0.2 fd01::2), r forwards.
async fn lab() -> Lab {
    let (r, at_r) = netns_and_rtnl();
    let (a, b) = (netns(), netns());
    pair(&at_r, (&r, "eth0", 1001), (&a, "eth0", 1002)).await;
    pair(&at_r, (&r, "eth1", 1003), (&b, "eth0", 1004)).await;
    let (at_a, at_b) = (Netlink::open(&a).expect("a socket"), Netlink::open(&b).expect("a socket"));
    sysctl::write(&r, "net.ipv4.ip_forward", "1").expect("forwards");
    sysctl::write(&r, "net.ipv6.conf.all.forwarding", "1").expect("forwards");
    // The kernel limits how many errors it sends to one host, and tests are quick. Not by net.ipv4.icmp_ratelimit: at 0
    // that empties the purse from which the errors of `unreachable` routes are paid too (inet_peer_xrlim_allow).
    sysctl::write(&r, "net.ipv4.icmp_ratemask", "0").expect("unlimited");
    sysctl::write(&r, "net.ipv6.icmp.ratelimit", "0").expect("unlimited");
    equip(&at_r, 1001, &["10.0.0.254/24", "fd00::fe/64", "fe80::b/64"]).await;
    equip(&at_r, 1003, &["10.1.0.254/24", "fd01::fe/64"]).await;
    equip(&at_a, 1002, &["10.0.0.1/24", "fd00::1/64", "fe80::a/64"]).await;
    equip(&at_b, 1004, &["10.1.0.2/24", "fd01::2/64"]).await;
    for (rtnl, to, via) in [
        (&at_a, "10.0.0.0/8", "10.0.0.254"),
        (&at_a, "fd00::/8", "fd00::fe"),
        (&at_b, "10.0.0.0/8", "10.1.0.254"),
        (&at_b, "fd00::/8", "fd01::fe"),
    ] {
        let to = Route { via: Some(ip(via)), ..Route::new(to.parse().expect("a network")) };
        route::add(rtnl, &to).expect("routed");
    }
    for (to, kind) in [
        ("10.2.0.0/16", RouteKind::Unreachable),
        ("10.3.0.0/16", RouteKind::Prohibit),
        ("10.4.0.0/16", RouteKind::Blackhole),
        ("fd02::/64", RouteKind::Unreachable),
        ("fd03::/64", RouteKind::Prohibit),
        ("fd04::/64", RouteKind::Blackhole),
    ] {
        route::add(&at_r, &Route { kind, ..Route::new(to.parse().expect("a network")) }).expect("routed");
    }
    // Read last, when both ends of each pair are up: until then a link may drop packets.
    for (rtnl, index) in [(&at_r, 1001), (&at_r, 1003), (&at_a, 1002), (&at_b, 1004)] {
        assert!(link::get(rtnl, index).expect("read").is_some_and(|link| link.state == "up"));
    }
    Lab { a, r, _b: b }
}

/// One request, with long enough a deadline that no answer in time means no answer at all.
fn one(to: &str) -> Ping {
    Ping { deadline: Duration::from_secs(10), ..Ping::new(ip(to)) }
}

async fn refusal(netns: &Netns, request: &Ping) -> String {
    let report = ping(netns, request).await.expect("a report");
    assert_eq!((report.sent, report.received, report.rtt.len()), (request.count, 0, 0), "{}", request.to);
    report.refused.unwrap_or_else(|| panic!("no refusal of {request:?}"))
}

#[test]
fn who_is_there_answers() {
    block_on(async {
        let lab = lab().await;
        for to in ["10.0.0.1", "10.0.0.254", "10.1.0.2", "fd00::fe", "fd01::2", "127.0.0.1", "::1"] {
            let request = Ping { count: 3, interval: Duration::from_millis(5), ..one(to) };
            let report = ping(&lab.a, &request).await.expect("a report");
            let summary = (report.sent, report.received, report.duplicates, report.rtt.len());
            assert_eq!(summary, (3, 3, 0, 3), "{to}: {report:?}");
            assert_eq!(report.refused, None, "{to}");
        }
        for size in [0, 3, 1472, 3000, 65_000] {
            let report = ping(&lab.a, &Ping { size, ..one("10.1.0.2") }).await.expect("a report");
            assert_eq!(report.received, 1, "{size} bytes");
        }
    });
}

#[test]
fn link_local_by_its_link_and_from_an_address() {
    block_on(async {
        let lab = lab().await;
        let by_link = Ping { dev: Some("eth0".to_string()), ..one("fe80::b") };
        assert_eq!(ping(&lab.a, &by_link).await.expect("a report").received, 1);
        let from = Ping { src: Some(ip("10.0.0.1")), ..one("10.1.0.2") };
        assert_eq!(ping(&lab.a, &from).await.expect("a report").received, 1);
        let not_ours = Ping { src: Some(ip("10.0.0.77")), ..one("10.1.0.2") };
        let error = ping(&lab.a, &not_ours).await.expect_err("not ours");
        assert_eq!((error.errno(), error.doing()), (libc::EADDRNOTAVAIL, "ping 10.1.0.2"));
        let no_link = Ping { dev: Some("eth9".to_string()), ..one("10.1.0.2") };
        assert_eq!(ping(&lab.a, &no_link).await.expect_err("no such link").errno(), libc::ENODEV);
    });
}

/// Each of these would wait for ten seconds if it did not end with its refusal.
#[test]
fn a_refusal_ends_it_and_is_told() {
    block_on(async {
        let lab = lab().await;
        for (to, expected) in [
            ("10.2.0.1", "Destination Host Unreachable from 10.0.0.254"),
            ("10.3.0.1", "Packet filtered from 10.0.0.254"),
            ("192.0.2.1", "Network is unreachable"),
            ("fd02::1", "Destination unreachable: No route from fd00::fe"),
            ("fd03::1", "Destination unreachable: Administratively prohibited from fd00::fe"),
            ("2001:db8::1", "Network is unreachable"),
        ] {
            assert_eq!(refusal(&lab.a, &one(to)).await, expected, "{to}");
        }
        let short = Ping { ttl: Some(1), ..one("10.1.0.2") };
        assert_eq!(refusal(&lab.a, &short).await, "Time to live exceeded from 10.0.0.254");
        let short = Ping { ttl: Some(1), ..one("fd01::2") };
        assert_eq!(refusal(&lab.a, &short).await, "Time exceeded: Hop limit from fd00::fe");
        let many = Ping { count: 3, interval: Duration::from_millis(1), ttl: Some(1), ..one("10.1.0.2") };
        assert_eq!(refusal(&lab.a, &many).await, "Time to live exceeded from 10.0.0.254");
    });
}

#[test]
fn nobody_there_is_told_by_the_own_kernel() {
    block_on(async {
        let lab = lab().await;
        // Three questions a second apart by default.
        sysctl::write(&lab.a, "net.ipv4.neigh.eth0.retrans_time_ms", "10").expect("set");
        sysctl::write(&lab.a, "net.ipv6.neigh.eth0.retrans_time_ms", "10").expect("set");
        assert_eq!(refusal(&lab.a, &one("10.0.0.99")).await, "Destination Host Unreachable from 10.0.0.1");
        let text = refusal(&lab.a, &one("fd00::99")).await;
        assert_eq!(text, "Destination unreachable: Address unreachable from fd00::1");
    });
}

#[test]
fn too_big_a_packet_is_refused_where_it_may_not_be_cut() {
    block_on(async {
        let lab = lab().await;
        let rtnl = Netlink::open(&lab.r).expect("a socket");
        link::change(&rtnl, 1003, &Change { mtu: Some(1300), ..Change::default() }).expect("set");
        let big = Ping { size: 1400, dont_fragment: true, ..one("10.1.0.2") };
        assert_eq!(refusal(&lab.a, &big).await, "Frag needed and DF set (mtu = 1300) from 10.0.0.254");
        let big = Ping { size: 1400, dont_fragment: true, ..one("fd01::2") };
        assert_eq!(refusal(&lab.a, &big).await, "Packet too big: mtu=1300 from fd00::fe");
        for to in ["10.1.0.2", "fd01::2"] {
            let huge = Ping { size: 1600, dont_fragment: true, ..one(to) };
            assert_eq!(refusal(&lab.a, &huge).await, "Message too long");
        }
    });
}

#[test]
fn silence_is_loss_at_the_deadline() {
    block_on(async {
        let lab = lab().await;
        for to in ["10.4.0.1", "fd04::1"] {
            let deadline = Duration::from_millis(50);
            let request = Ping { count: 2, interval: Duration::from_millis(1), deadline, ..Ping::new(ip(to)) };
            let report = ping(&lab.a, &request).await.expect("a report");
            assert_eq!(report, PingReport { sent: 2, ..PingReport::default() });
            // The deadline may come before the last request is due.
            let request = Ping { count: 9, interval: Duration::from_secs(9), deadline, ..Ping::new(ip(to)) };
            assert_eq!(ping(&lab.a, &request).await.expect("a report").sent, 1);
        }
    });
}

#[test]
fn a_second_answer_is_a_duplicate() {
    let request = Ping { count: 2, ..Ping::new(ip("10.0.0.255")) };
    let mut echoes = PendingEchoes::new(&request);
    let now = Instant::now();
    for _ in 0..2 {
        echoes.echoes.push(Echo { sent_at: now, answered: false, refused: false });
        echoes.report.sent += 1;
    }
    echoes.answer(0, now);
    echoes.answer(0, now);
    assert_eq!((echoes.report.received, echoes.report.duplicates, echoes.all_settled()), (1, 1, false));
    // Refused first and answered then, as by two hosts: answered.
    echoes.refuse(1, "no".to_string());
    assert!(echoes.all_settled());
    echoes.answer(1, now);
    assert_eq!((echoes.report.received, echoes.all_settled()), (2, true));
    // Never sent.
    echoes.answer(2, now);
    assert_eq!(echoes.report.received, 2);
}
