use super::*;
use crate::net::testing::{block_on, netns, netns_and_rtnl, pair};
use crate::net::{Change, Mac, Netns, NewLink, Run, link};

/// All that a link can have, as somebody might have set it up by hand.
const BY_HAND: &str = "
    ip link set lo up; ip link set wan0 up; ip link set other0 up; ip link set br0 up
    ip addr add 192.0.2.2/24 broadcast 192.0.2.77 dev wan0
    ip addr add 192.0.2.3/24 dev wan0 label wan0:1
    ip addr add 192.0.2.4/24 dev wan0 valid_lft 3600 preferred_lft 1800
    ip addr add 10.1.0.1/16 dev wan0 noprefixroute
    ip addr add 10.2.0.1/16 dev wan0 metric 77
    ip addr add 10.3.0.1 peer 10.3.0.2/32 dev wan0
    ip addr add 169.254.7.7/16 dev wan0 scope link
    ip addr add 198.51.100.2/24 dev other0
    ip -6 addr add 2001:db8::2/64 dev wan0
    ip -6 addr add 2001:db8::3/64 dev wan0 nodad
    ip -6 addr add 2001:db8:1::1/64 dev wan0 noprefixroute valid_lft 7200 preferred_lft 0
    ip -6 addr add 2001:db8:2::1/64 dev wan0 metric 88
    ip -6 addr add fe80::77/64 dev wan0
    ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev wan0 nud permanent
    ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev wan0 nud permanent router
    ip neigh add proxy 192.0.2.99 dev wan0
    ip route add default via 192.0.2.1 dev wan0 proto static metric 5 mtu lock 1400 advmss 1300 initcwnd 20 quickack 1
    ip route add 10.1.0.0/16 dev wan0 proto kernel scope link src 10.1.0.1 metric 100
    ip route add 10.9.0.0/16 via 192.0.2.1 dev wan0 src 192.0.2.3
    ip route append 10.9.0.0/16 via 192.0.2.9 dev wan0
    ip route add 10.10.0.0/16 via 203.0.113.9 dev wan0 onlink
    ip route add 10.11.0.0/16 tos 0x10 dev wan0 table 100
    ip route add 10.12.0.0/16 nexthop via 192.0.2.1 dev wan0 weight 3 nexthop via 198.51.100.1 dev other0
    ip route add 10.13.0.0/16 via inet6 fe80::1 dev wan0
    ip route add local 10.14.0.0/16 dev wan0 table local
    ip -6 route add default via fe80::1 dev wan0 proto static metric 2000 pref high expires 3600
    ip -6 route add 2001:db8:9::/48 via 2001:db8::1 dev wan0 mtu 1400 src 2001:db8::3
    ip -6 route add 2001:db8:a::/48 dev wan0
    ip -6 route add 2001:db8:b::/48 nexthop via fe80::1 dev wan0 weight 2 nexthop via fe80::2 dev other0
    ip -6 route add 2001:db8:c::/48 nexthop via fe80::1 dev wan0 nexthop via fe80::2 dev wan0";

/// What `ip` tells of all that, without what runs or comes a moment later.
const QUESTION: &str = r"
    ip addr show dev wan0; ip route show table all; ip -6 route show table all; ip neigh show nud permanent; ip neigh show proxy";

async fn sh(netns: &Netns, script: &str) -> String {
    let argv = ["sh", "-ec", script].map(str::to_string);
    let output = crate::net::run(&Run::new(netns, &argv)).await.expect("a shell");
    assert_eq!((output.code, String::from_utf8_lossy(&output.stderr).as_ref()), (0, ""), "{script}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the lines that `ip` prints, without lifetimes, and without what the kernel's workers add a moment later.
async fn told(netns: &Netns) -> Vec<String> {
    let text = sh(netns, QUESTION).await;
    let mut lines: Vec<String> = Vec::new();
    let by_worker = ["table local proto kernel", "proto kernel_ll", "fe80::/64 dev br0 "];
    for line in text.lines().filter(|line| !by_worker.iter().any(|words| line.contains(words))) {
        let mut words: Vec<&str> = line.split_whitespace().filter(|word| *word != "tentative").collect();
        while let Some(at) = words.iter().position(|word| word.ends_with("sec") || *word == "expires") {
            words.remove(at);
        }
        lines.push(words.join(" "));
    }
    lines
}

/// wan0, other0 and the bridge br0 in one namespace, with all that wan0 can have.
async fn world() -> (Netns, Netns, Netlink) {
    let (netns, rtnl) = netns_and_rtnl();
    let outside = self::netns();
    pair(&rtnl, (&netns, "wan0", 1001), (&outside, "isp0", 1002)).await;
    pair(&rtnl, (&netns, "other0", 1003), (&outside, "isp1", 1004)).await;
    let bridge = NewLink { name: "br0", index: 1000, mac: Mac::local(1000), mtu: None };
    crate::net::link::bridge::add_bridge(&rtnl, &bridge, &Default::default()).expect("a bridge");
    let at_outside = Netlink::open(&outside).expect("a socket");
    for index in [1002, 1004] {
        link::change(&at_outside, index, &Change { up: Some(true), ..Change::default() }).expect("up");
    }
    sh(&netns, BY_HAND).await;
    (netns, outside, rtnl)
}

/// Shows a route with its hops in an order of their own.
fn by_hop(route: &Route) -> String {
    let mut route = route.clone();
    route.hops.sort_by_key(|hop| hop.via);
    format!("{route:?}")
}

async fn named(rtnl: &Netlink, name: &str) -> Link {
    link::find(rtnl, name).expect("read").expect(name)
}

#[test]
fn all_goes_to_the_other_link_and_comes_back_as_it_was() {
    block_on(async {
        let (netns, _outside, rtnl) = world().await;
        let before = told(&netns).await;
        let config = LinkConfig::of(&rtnl, &named(&rtnl, "wan0").await).expect("its configuration");
        assert_eq!((config.addresses().len(), config.neighbours().len()), (12, 3));
        // What a journal holds is the same configuration.
        let text = serde_json::to_string(&config).expect("JSON");
        let config: LinkConfig =
            serde_json::from_str::<LinkConfig>(&text).inspect(|read| assert_eq!(*read, config)).expect("read");

        link::change(&rtnl, 1001, &Change { controller: Some(Some(1000)), ..Change::default() }).expect("a port");
        let (wan, br) = (named(&rtnl, "wan0").await, named(&rtnl, "br0").await);
        config.put_on(&rtnl, &br, None).expect("put on");
        config.take_off(&rtnl, &wan).expect("taken off");
        let left = LinkConfig::of(&rtnl, &wan).expect("its configuration");
        assert_eq!((left.addresses(), left.routes(), left.neighbours()), (vec![], vec![], vec![]));
        let there = LinkConfig::of(&rtnl, &br).expect("its configuration");
        let to_br = |route: &Route| {
            let mut route = route.clone();
            let index = |dev: &mut Option<u32>| {
                if *dev == Some(1001) {
                    *dev = Some(1000);
                }
            };
            index(&mut route.dev);
            route.hops.iter_mut().for_each(|hop| index(&mut hop.dev));
            by_hop(&route)
        };
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        assert_eq!(
            sorted(there.routes().iter().map(by_hop).collect()),
            sorted(config.routes().iter().map(to_br).collect())
        );
        let nets =
            |config: &LinkConfig| sorted(config.addresses().iter().map(|address| format!("{}", address.net)).collect());
        assert_eq!(nets(&there), nets(&config));
        let labels: Vec<String> = there.addresses().into_iter().filter_map(|address| address.label).collect();
        assert!(labels.contains(&"br0:1".to_string()) && labels.contains(&"br0".to_string()), "{labels:?}");

        config.put_on(&rtnl, &wan, Some(br.index)).expect("put back");
        config.take_off(&rtnl, &br).expect("taken off again");
        link::change(&rtnl, 1001, &Change { controller: Some(None), ..Change::default() }).expect("a port no more");
        assert_eq!(told(&netns).await, before);
        // Once more, as another undo would.
        config.put_on(&rtnl, &wan, None).expect("put back");
        config.take_off(&rtnl, &br).expect("taken off again");
        assert_eq!(told(&netns).await, before);
    });
}

/// Lifetimes run on meanwhile, and what the kernel made last longer on the other link lasts longer.
#[test]
fn lifetimes_run_on() {
    block_on(async {
        let (netns, _outside, rtnl) = world().await;
        let (wan, br) = (named(&rtnl, "wan0").await, named(&rtnl, "br0").await);
        let mut config = LinkConfig::of(&rtnl, &wan).expect("its configuration");
        config.take_off(&rtnl, &wan).expect("taken off");
        // As if read some time ago.
        config.read_at -= 2000;
        config.put_on(&rtnl, &br, None).expect("put on");
        let life = async |dev: &str, ip: &str| {
            let text = sh(&netns, &format!("ip -o addr show dev {dev} | grep ' {ip}/'")).await;
            let mut words = text.split_whitespace().filter_map(|word| word.strip_suffix("sec"));
            let mut next = || words.next().and_then(|seconds| seconds.parse::<u32>().ok()).expect("a time");
            (next(), next())
        };
        let (valid, preferred) = life("br0", "192.0.2.4").await;
        assert!((1590..=1600).contains(&valid) && preferred == 0, "{valid} {preferred}");
        let route = sh(&netns, "ip -6 route show default dev br0").await;
        assert!(route.contains("expires 1600sec") || route.contains("expires 159"), "{route}");
        sh(&netns, "ip addr change 192.0.2.4/24 dev br0 valid_lft 9000 preferred_lft 8000").await;
        config.read_at -= 2000;
        config.put_on(&rtnl, &wan, Some(br.index)).expect("put back");
        let (valid, preferred) = life("wan0", "192.0.2.4").await;
        assert!((8990..=9000).contains(&valid) && (7990..=8000).contains(&preferred), "{valid} {preferred}");
        let route = sh(&netns, "ip -6 route show default dev wan0").await;
        assert_eq!(route, "", "it has run out");
    });
}

#[test]
fn what_cannot_be_kept_is_said() {
    block_on(async {
        let (netns, _outside, rtnl) = world().await;
        let by_object = "ip nexthop add id 7 via 192.0.2.1 dev wan0; ip route add 10.20.0.0/16 nhid 7";
        sh(&netns, by_object).await;
        let error = LinkConfig::of(&rtnl, &named(&rtnl, "wan0").await).expect_err("a next hop object");
        assert!(error.is_unsupported() && error.to_string().contains("next hop object"), "{error}");
        let lo = LinkConfig::of(&rtnl, &named(&rtnl, "br0").await).expect("its configuration");
        assert_eq!((lo.addresses(), lo.routes(), lo.neighbours()), (vec![], vec![], vec![]), "what comes by itself");
    });
}

#[test]
fn one_refusal_does_not_keep_the_rest_off() {
    block_on(async {
        let (netns, _outside, rtnl) = world().await;
        let (wan, br) = (named(&rtnl, "wan0").await, named(&rtnl, "br0").await);
        let config = LinkConfig::of(&rtnl, &wan).expect("its configuration");
        sh(&netns, "echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6").await;
        let error = config.put_on(&rtnl, &br, None).expect_err("no IPv6 there");
        assert!(error.is_denied(), "{error}");
        let routes = sh(&netns, "ip route show dev br0").await;
        assert!(routes.contains("default via 192.0.2.1") && routes.contains("192.0.2.0/24"), "{routes}");
    });
}

#[test]
fn what_is_no_load_is_an_error() {
    for wrong in ["zz", "00", "é", "0102030405060708090a0b0c0d0e0f10"] {
        let json = serde_json::json!({ "index": 1, "name": "x", "read_at": 0, "messages": [wrong] });
        assert!(serde_json::from_value::<LinkConfig>(json).is_err(), "{wrong}");
    }
}

/// What was refused once, or was removed, is put back in its place among the others.
#[test]
fn what_is_put_back_later_stands_where_it_stood() {
    block_on(async {
        let (netns, _outside, rtnl) = world().await;
        let before = told(&netns).await;
        let wan = named(&rtnl, "wan0").await;
        let config = LinkConfig::of(&rtnl, &wan).expect("its configuration");
        for gap in [
            "echo 1 >/proc/sys/net/ipv4/conf/wan0/promote_secondaries; ip addr del 192.0.2.2/24 dev wan0
             echo 0 >/proc/sys/net/ipv4/conf/wan0/promote_secondaries",
            "ip route del 10.9.0.0/16 via 192.0.2.1 dev wan0 src 192.0.2.3",
            "ip -6 route del 2001:db8:b::/48 via fe80::1 dev wan0",
            "ip addr del 10.1.0.1/16 dev wan0; ip neigh del proxy 192.0.2.99 dev wan0; ip -6 addr del 2001:db8::2/64 dev wan0",
        ] {
            sh(&netns, gap).await;
            assert_ne!(told(&netns).await, before, "{gap}");
            config.put_on(&rtnl, &wan, None).expect(gap);
            let (mut now, mut then) = (told(&netns).await, before.clone());
            if gap.contains("-6 addr") {
                // Of IPv6 the last one added is the first one listed.
                now.sort();
                then.sort();
            }
            assert_eq!(now, then, "{gap}");
        }
    });
}
