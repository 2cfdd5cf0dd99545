//! Networks that can't be made, found or removed: what, why, what next; and nothing is half done.

use expect_test::expect;

use super::{CONTAINERS, in_network_world, make_web, network, nothing_happens};

#[test]
fn a_subnet_that_cant_be() {
    in_network_world(CONTAINERS, |w, _| {
        nothing_happens(
            w,
            expect![[r#"
                $ topo network create web --subnet 10.5.0
                --- stderr
                error: create network `web`: read the network `10.5.0`: it is not an IP address
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet hello
                --- stderr
                error: create network `web`: read the network `hello`: it is not an IP address
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet ''
                --- stderr
                error: create network `web`: read the network ``: it is not an IP address
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0
                --- stderr
                error: create network `web`: read the network `10.5.0.0`: the prefix length is missing; `10.5.0.0/32` is one host
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/33
                --- stderr
                error: create network `web`: read the network `10.5.0.0/33`: the prefix length is not a number from 0 to 32
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet 10.5.0.1/24
                --- stderr
                error: create network `web`: read the network `10.5.0.1/24`: host bits are set; did you mean `10.5.0.0/24`?
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/32
                --- stderr
                error: create network `web`: `10.5.0.0/32` has no room for a gateway and a container
                hint: the prefix is at most /31
                --- exit code 1
                $ topo network create web --subnet fd00::/128
                --- stderr
                error: create network `web`: `fd00::/128` has no room for a gateway and a container
                hint: the prefix is at most /127
                --- exit code 1
                $ topo network create web --subnet fd00::1/64
                --- stderr
                error: create network `web`: read the network `fd00::1/64`: host bits are set; did you mean `fd00::/64`?
                hint: a subnet is such as `10.5.0.0/24` or `fd05::/64`
                --- exit code 1
                $ topo network create web --subnet 0.0.0.0/0
                --- stderr
                error: make the pool `0.0.0.0/0`: it has addresses of groups, which are no host's
                hint: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, as RFC 1918 and RFC 4193 have it
                --- exit code 1
                $ topo network create web --subnet 127.0.0.0/24
                --- stderr
                error: make the pool `127.0.0.0/24`: it has addresses with which a host reaches itself alone
                hint: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, as RFC 1918 and RFC 4193 have it
                --- exit code 1
                $ topo network create web --subnet 224.0.0.0/24
                --- stderr
                error: make the pool `224.0.0.0/24`: it has addresses of groups, which are no host's
                hint: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, as RFC 1918 and RFC 4193 have it
                --- exit code 1
                $ topo network create web --subnet fe90::/64
                --- stderr
                error: make the pool `fe90::/64`: it has link-local addresses, which every device can have and no router sends on
                hint: take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8, as RFC 1918 and RFC 4193 have it
                --- exit code 1
                $ topo network create web --ipv6 10.5.0.0/24
                --- stderr
                error: create network `web`: `10.5.0.0/24` is no IPv6 network
                hint: `--ipv6` takes one such as `fd00:1::/64`
                --- exit code 1
                $ topo network create web --subnet fd00:1::/64 --ipv6 fd00:2::/64
                --- stderr
                error: create network `web`: both its subnets are IPv6
                hint: `--subnet` takes the IPv4 one, or is the only one
                --- exit code 1
                $ topo network create web --ipv6 fd00:2::1/64
                --- stderr
                error: create network `web`: read the network `fd00:2::1/64`: host bits are set; did you mean `fd00:2::/64`?
                hint: an IPv6 subnet is such as `fd05::/64`
                --- exit code 1
            "#]],
        );
    });
}

#[test]
fn a_gateway_that_cant_be() {
    in_network_world(CONTAINERS, |w, _| {
        nothing_happens(
            w,
            expect![[r#"
                $ topo network create web --gateway 10.5.0.1
                --- stderr
                error: create network `web`: a gateway was given and no subnet for it to be in
                hint: give `--subnet` too
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --gateway 10.6.0.1
                --- stderr
                error: create network `web`: its gateway `10.6.0.1` is not in `10.5.0.0/24`
                hint: the gateway is an address of the subnet
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --gateway 10.5.0
                --- stderr
                error: create network `web`: read the IP address `10.5.0`: it is not an IP address
                hint: a gateway is an address of the subnet, such as its first one
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --gateway 10.5.0.0
                --- stderr
                error: make the pool `10.5.0.0/24`: `10.5.0.0` can't be its gateway: it is the network's own address
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --gateway 10.5.0.255
                --- stderr
                error: make the pool `10.5.0.0/24`: `10.5.0.255` can't be its gateway: it is the broadcast address
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --gateway fd00::1
                --- stderr
                error: create network `web`: its gateway `fd00::1` is not in `10.5.0.0/24`
                hint: the gateway is an address of the subnet
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --ipv6 fd00::/64 --gateway fd01::1
                --- stderr
                error: create network `web`: its gateway `fd01::1` is not in `10.5.0.0/24`
                hint: the gateway is an address of the subnet
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --mtu 12
                --- stderr
                error: option `mtu` of `bridge`: expected a number of bytes from 68 to 65535, got 12
                --- exit code 1
                $ topo network create web --subnet 10.5.0.0/24 --mtu 99999
                --- stderr
                error: option `mtu` of `bridge`: expected a number of bytes from 68 to 65535, got 99999
                --- exit code 1
            "#]],
        );
    });
}

#[test]
fn a_driver_that_isnt_there() {
    in_network_world(CONTAINERS, |w, _| {
        nothing_happens(
            w,
            expect![[r#"
                $ topo network create web --driver brigde
                --- stderr
                error: use driver `brigde`: there is no driver of this name
                hint: did you mean `bridge`? there are: bridge, ipvlan, isolated, macvlan, routed
                --- exit code 1
                $ topo network create web --driver ../bridge
                --- stderr
                error: driver name `../bridge`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create web --driver ''
                --- stderr
                error: driver name ``: it is empty
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create web --driver macvlan
                --- stderr
                error: create network `web`: the driver `macvlan` shares a device of the host, and none was given
                hint: `--parent` names it, and the host has none
                --- exit code 1
                $ topo network create web --driver macvlan --subnet 10.5.0.0/24 --parent eth9
                --- stderr
                error: find device `eth9`: there is no such device
                hint: it has: lo
                --- exit code 1
            "#]],
        );
    });
}

/// N7: one rule for names, said in the error.
#[test]
fn n7_names_follow_one_rule() {
    in_network_world(CONTAINERS, |w, _| {
        nothing_happens(
            w,
            expect![[r#"
                $ topo network create ../x
                --- stderr
                error: network name `../x`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create ''
                --- stderr
                error: network name ``: it is empty
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create a/b
                --- stderr
                error: network name `a/b`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create .hidden
                --- stderr
                error: network name `.hidden`: its first character is not a letter, digit or _
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network create -- -x
                --- stderr
                error: network name `-x`: its first character is not a letter, digit or _
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network inspect ../x
                --- stderr
                error: network name `../x`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network rm ''
                --- stderr
                error: network name ``: it is empty
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
                $ topo network connect ../x c1
                --- stderr
                error: network name `../x`: '/' is not allowed in it
                hint: a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _
                --- exit code 1
            "#]],
        );
        let before = w.snapshot();
        let rule = "a name has 1 to 127 of the characters a-z A-Z 0-9 _ . @ + -, the first a letter, digit or _";
        for (name, because) in [
            ("a\nb", r"'\n' is not allowed in it"),
            ("ü", "'ü' is not allowed in it"),
            (&"n".repeat(128), "it has 128 bytes, at most 127 are allowed"),
        ] {
            for words in [vec!["create", name], vec!["rm", name], vec!["connect", name, "c1"], vec!["inspect", name]] {
                let ran = w.topo(&[&["network"], words.as_slice()].concat()).fails(1);
                ran.says("network name `").says(because).says(rule);
            }
        }
        w.assert_clean(&before);
    });
}

#[test]
fn a_network_that_isnt_there() {
    in_network_world(CONTAINERS, |w, _| {
        nothing_happens(
            w,
            expect![[r#"
                $ topo network inspect web
                --- stderr
                error: find network `web`: there is no network of this name
                hint: there is no network at all
                --- exit code 1
                $ topo network rm web
                --- stderr
                error: find network `web`: there is no network of this name
                hint: there is no network at all
                --- exit code 1
            "#]],
        );
        make_web(w);
        nothing_happens(
            w,
            expect![[r#"
                $ topo network inspect wbe
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network rm wbe
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network rm --force wbe
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network connect wbe c1
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network disconnect wbe c1
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network repair wbe
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network restore wbe
                --- stderr
                error: find network `wbe`: there is no network of this name
                hint: did you mean `web`?
                --- exit code 1
                $ topo network inspect office
                --- stderr
                error: find network `office`: there is no network of this name
                hint: there are: web
                --- exit code 1
                $ topo network create web
                --- stderr
                error: create network `web`: there is a network of this name, with driver `bridge`
                hint: `topo network inspect web` shows it, `topo network rm web` removes it
                --- exit code 1
                $ topo network create web --subnet 10.9.0.0/24
                --- stderr
                error: create network `web`: there is a network of this name, with driver `bridge`
                hint: `topo network inspect web` shows it, `topo network rm web` removes it
                --- exit code 1
                $ topo network rm web
                --- stderr
                error: remove network `web`: connected to it: `c1` (10.5.0.2)
                hint: disconnect them, or give `--force`
                --- exit code 1
                $ topo network disconnect web c2
                --- stderr
                error: find `c2` in network `web`: it is not connected
                hint: connected are: `c1`
                --- exit code 1
                $ topo network disconnect web c9
                --- stderr
                error: find `c9` in network `web`: it is not connected
                hint: connected are: `c1`
                --- exit code 1
                $ topo network disconnect web ''
                --- stderr
                error: find `` in network `web`: it is not connected
                hint: connected are: `c1`
                --- exit code 1
            "#]],
        );
        network(w, "rm --force web").ok();
    });
}

/// Of several names, one that fails is no hindrance to the others.
#[test]
fn one_of_many_that_isnt_there() {
    in_network_world(CONTAINERS, |w, before| {
        network(w, "create a").ok();
        network(w, "create b").ok();
        let ran = network(w, "rm a x b").fails(1);
        ran.says("network a is removed").says("network b is removed").says("find network `x`");
        w.assert_clean(before);
    });
}
