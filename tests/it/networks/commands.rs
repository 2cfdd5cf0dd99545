//! What `topo network …` says when all goes well, and its help.

use expect_test::expect;

use super::{CONTAINERS, in_network_world};
use crate::cli::Terminal;

#[test]
fn the_life_of_a_network() {
    in_network_world(CONTAINERS, |w, _| {
        w.session(expect![[r#"
            $ topo network ls
            NAME  SUBNET  DRIVER  GATEWAY  STATE  ENDPOINTS  LABELS
            $ topo network ls --json
            []
            $ topo network create web --subnet 10.5.0.0/24 --label tier=front --label env=test
            network web: 10.5.0.0/24, gateway 10.5.0.1, driver bridge
            $ topo network connect web c1 --publish 8080:80 --alias front
            c1 is connected to web: eth0 has 10.5.0.2/24
            published 8080:80/tcp
            $ topo network connect web c2 --ip 10.5.0.9 --publish 127.0.0.1:5353:53/udp --publish 8000-8002:9000-9002
            c2 is connected to web: eth0 has 10.5.0.9/24
            published 127.0.0.1:5353:53/udp
            published 8000-8002:9000-9002/tcp
            $ topo network ls
            NAME  SUBNET       DRIVER  GATEWAY   STATE  ENDPOINTS  LABELS
            web   10.5.0.0/24  bridge  10.5.0.1  up     2          env=test,tier=front
            $ topo network ls --json
            [
              {
                "created": DATE,
                "driver": "bridge",
                "endpoints": 2,
                "gateway": [
                  "10.5.0.1"
                ],
                "internal": false,
                "labels": {
                  "env": "test",
                  "tier": "front"
                },
                "name": "web",
                "state": "up",
                "subnet": [
                  "10.5.0.0/24"
                ]
              }
            ]
            $ topo network inspect web
            {
              "created": DATE,
              "dev": "br-web",
              "drift": [],
              "driver": "bridge",
              "endpoints": [
                {
                  "addresses": [
                    "10.5.0.2/24"
                  ],
                  "aliases": [
                    "front"
                  ],
                  "created": DATE,
                  "dev": "eth0",
                  "id": "XXXXXXXXXXXX",
                  "ports": [
                    "8080:80/tcp"
                  ],
                  "state": "up",
                  "target": "c1"
                },
                {
                  "addresses": [
                    "10.5.0.9/24"
                  ],
                  "aliases": [],
                  "created": DATE,
                  "dev": "eth0",
                  "id": "XXXXXXXXXXXX",
                  "ports": [
                    "127.0.0.1:5353:53/udp",
                    "8000-8002:9000-9002/tcp"
                  ],
                  "state": "up",
                  "target": "c2"
                }
              ],
              "internal": false,
              "lab": "net.web",
              "labels": {
                "env": "test",
                "tier": "front"
              },
              "mtu": null,
              "name": "web",
              "parent": null,
              "rules": [
                {
                  "bytes": null,
                  "chain": "dnat",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "dnat ip to meta l4proto . ip daddr . th dport map @v4_at"
                },
                {
                  "bytes": null,
                  "chain": "dnat",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "dnat ip to meta l4proto . th dport map @v4"
                },
                {
                  "bytes": null,
                  "chain": "dnat",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "dnat ip6 to meta l4proto . ip6 daddr . th dport map @v6_at"
                },
                {
                  "bytes": null,
                  "chain": "dnat",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "dnat ip6 to meta l4proto . th dport map @v6"
                },
                {
                  "bytes": null,
                  "chain": "prerouting",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "fib daddr type local jump dnat"
                },
                {
                  "bytes": null,
                  "chain": "local",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "ip6 daddr ::1 return"
                },
                {
                  "bytes": null,
                  "chain": "local",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "fib daddr type local jump dnat"
                },
                {
                  "bytes": null,
                  "chain": "martians",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "iifname != \"lo\" ip daddr 127.0.0.0/8 drop"
                },
                {
                  "bytes": null,
                  "chain": "hairpin",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "ct state new ct status dnat fib daddr . iif oif != 0 meta mark set meta mark | 0x10000000"
                },
                {
                  "bytes": null,
                  "chain": "postrouting",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "ct status dnat meta mark & 0x10000000 == 0x10000000 masquerade"
                },
                {
                  "bytes": null,
                  "chain": "postrouting",
                  "lab": "net.web",
                  "packets": null,
                  "rule": "ct status dnat ip saddr 127.0.0.0/8 masquerade"
                },
                {
                  "bytes": 0,
                  "chain": "postrouting",
                  "lab": "net.web",
                  "packets": 0,
                  "rule": "ip saddr 10.5.0.0/24 oifname != \"br-web\" counter masquerade"
                },
                {
                  "bytes": 0,
                  "chain": "forward",
                  "lab": "net.web",
                  "packets": 0,
                  "rule": "oifname \"br-web\" ct state established,related counter accept"
                },
                {
                  "bytes": 0,
                  "chain": "forward",
                  "lab": "net.web",
                  "packets": 0,
                  "rule": "oifname \"br-web\" ct status dnat counter accept"
                },
                {
                  "bytes": 0,
                  "chain": "forward",
                  "lab": "net.web",
                  "packets": 0,
                  "rule": "iifname != \"br-web\" oifname \"br-web\" counter drop"
                }
              ],
              "state": "up",
              "subnets": [
                {
                  "gateway": "10.5.0.1",
                  "subnet": "10.5.0.0/24"
                }
              ],
              "used": [
                2
              ]
            }
            $ topo ls
            NAME     KIND     STATE  NETNS  DEVS  AGE  SCRIPT
            net.web  network  up     0      1     Ns   scripts/network/create.rhai
            $ topo network disconnect web front
            front is disconnected from web
            $ topo network disconnect web /run/netns/c2
            /run/netns/c2 is disconnected from web
            $ topo network rm web
            network web is removed
            $ topo network ls
            NAME  SUBNET  DRIVER  GATEWAY  STATE  ENDPOINTS  LABELS
            $ topo ls
            --- stderr
            no lab is up
        "#]]);
    });
}

#[test]
fn several_networks_at_once() {
    in_network_world(CONTAINERS, |w, _| {
        w.session(expect![[r#"
            $ topo network create one
            network one: 10.224.0.0/24, gateway 10.224.0.1, driver bridge
            $ topo network create two --driver routed --ipv6 fd00:2::/64
            network two: 10.224.1.0/24, gateway 10.224.1.1, driver routed
            network two: fd00:2::/64, gateway fd00:2::1, driver routed
            $ topo network create three --driver isolated --subnet fd00:3::/64
            network three: fd00:3::/64, gateway fd00:3::1, driver isolated
            $ topo network create four --subnet 10.9.0.0/24 --gateway 10.9.0.254 --mtu 1400 --internal
            network four: 10.9.0.0/24, gateway 10.9.0.254, driver bridge
            $ topo network connect one c1
            c1 is connected to one: eth0 has 10.224.0.2/24
            $ topo network connect two c1
            c1 is connected to two: eth1 has 10.224.1.2/24
            c1 is connected to two: eth1 has fd00:2::2/64
            $ topo network connect three c1
            c1 is connected to three: eth2 has fd00:3::2/64
            $ topo network connect four c1
            c1 is connected to four: eth3 has 10.9.0.1/24
            $ topo network ls
            NAME   SUBNET                     DRIVER    GATEWAY               STATE  ENDPOINTS  LABELS
            four   10.9.0.0/24                bridge    10.9.0.254            up     1
            one    10.224.0.0/24              bridge    10.224.0.1            up     1
            three  fd00:3::/64                isolated  fd00:3::1             up     1
            two    10.224.1.0/24 fd00:2::/64  routed    10.224.1.1 fd00:2::1  up     1
            $ topo network repair
            four: nothing is amiss
            one: nothing is amiss
            three: nothing is amiss
            two: nothing is amiss
            $ nft flush ruleset
            $ topo network repair
            four: put back: add table `topo-XXXXXXXX-net.four`
            four: put back: make table `topo-XXXXXXXX-net.four` ready for published ports
            four: put back: drop what goes the way `forward`
            four: put back: drop what goes the way `forward`
            one: put back: add table `topo-XXXXXXXX-net.one`
            one: put back: make table `topo-XXXXXXXX-net.one` ready for published ports
            one: put back: masquerade `10.224.0.0/24`
            one: put back: accept what goes the way `forward`
            one: put back: accept what goes the way `forward`
            one: put back: drop what goes the way `forward`
            three: put back: add table `topo-XXXXXXXX-net.three`
            three: put back: make table `topo-XXXXXXXX-net.three` ready for published ports
            three: put back: drop what goes the way `forward`
            three: put back: drop what goes the way `forward`
            two: put back: add table `topo-XXXXXXXX-net.two`
            two: put back: make table `topo-XXXXXXXX-net.two` ready for published ports
            $ topo network restore
            four: it is up
            one: it is up
            three: it is up
            two: it is up
            $ topo network rm one two three four
            --- stderr
            error: remove networks: remove network `one`: connected to it: `c1` (10.224.0.2); remove network `two`: connected to it: `c1` (10.224.1.2); remove network `three`: connected to it: `c1` (fd00:3::2); remove network `four`: connected to it: `c1` (10.9.0.1)
            hint: disconnect them, or give `--force`
            --- exit code 1
            $ topo network rm one two three four --force
            network one is removed
            network two is removed
            network three is removed
            network four is removed
        "#]]);
    });
}

#[test]
fn the_help_of_each_command() {
    in_network_world("", |w, _| {
        w.session(expect![[r#"
            $ topo network
            --- stderr
            Workflows of `network`

            Usage: topo network <COMMAND>

            Commands:
              connect     Connects a container to a network
              create      Creates a container network
              disconnect  Disconnects a container from a network
              inspect     Shows all about a container network, as JSON
              ls          Lists the container networks
              repair      Puts back what of container networks was flushed or changed
              restore     Builds container networks again after a restart of the machine
              rm          Removes container networks
              help        Print this message or the help of the given subcommand(s)

            Options:
              -h, --help     Print help
              -V, --version  Print version
            --- exit code 2
            $ topo network --help
            Workflows of `network`

            Usage: topo network <COMMAND>

            Commands:
              connect     Connects a container to a network
              create      Creates a container network
              disconnect  Disconnects a container from a network
              inspect     Shows all about a container network, as JSON
              ls          Lists the container networks
              repair      Puts back what of container networks was flushed or changed
              restore     Builds container networks again after a restart of the machine
              rm          Removes container networks
              help        Print this message or the help of the given subcommand(s)

            Options:
              -h, --help     Print help
              -V, --version  Print version
            $ topo network create --help
            Creates a container network.

            Its containers reach each other, the host and, unless it is internal, the world outside; from
            outside they are reached at published ports. It stays until `topo network rm NETWORK`; after a
            restart of the machine `topo network restore` builds it again.

            Usage: topo network create [OPTIONS] <NETWORK>

            Arguments:
              <NETWORK>
                      the network's name

            Options:
                  --subnet <SUBNET>
                      its addresses, such as 10.5.0.0/24; a free /24 unless given

                  --gateway <ADDRESS>
                      the host's address in it; the first one unless given

                  --range <RANGE>
                      what containers get of it, such as 10.5.0.100-10.5.0.199; all unless given

                  --driver <DRIVER>
                      bridge, routed, isolated, macvlan, ipvlan, or your own

                      [default: bridge]

                  --ipv6 <SUBNET>
                      IPv6 addresses beside those of --subnet

                  --internal
                      no way out, and no way in

                  --mtu <N>
                      the MTU of its devices in bytes

                  --parent <DEV>
                      the device of the host that macvlan and ipvlan share

                  --label <K=V>
                      a label, to find it by

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network ls --help
            Lists the container networks

            Usage: topo network ls [OPTIONS]

            Options:
              -h, --help  Print help

            Run options:
                  --rm           Take the lab down at the end
                  --keep         Keep what was built even if the script fails
                  --sandbox      Build the lab in a private machine of its own (always so without root)
                  --trace        Print each step with the commands that do the same
                  --json         Print the result as JSON
                  --name <NAME>  Name the lab
            $ topo network inspect --help
            Shows all about a container network, as JSON.

            Its subnets, its containers with their addresses and ports, and its drift: what the kernel no longer
            has as it should be, and `topo network repair` puts back.

            Usage: topo network inspect [OPTIONS] <NETWORK>

            Arguments:
              <NETWORK>
                      the network

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network connect --help
            Connects a container to a network.

            The container gets a device, an address, a way out where it has none, and published ports. One that
            is connected already keeps its address; asking for another one is refused.

            Usage: topo network connect [OPTIONS] <NETWORK> <TARGET>

            Arguments:
              <NETWORK>
                      the network

              <TARGET>
                      the container: a process in it, the path of its netns, or the netns's name

            Options:
                  --ip <ADDRESS>
                      its address; the next free one unless given

                  --publish <PORTS>
                      [HOSTIP:]PORT:PORT[/PROTO], of the host and of the container, or ranges:
                      8000-8010:9000-9010/udp

                  --alias <ALIAS>
                      another name for it, for `topo network disconnect`

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network disconnect --help
            Disconnects a container from a network.

            Whether it still runs or not: all that its connection made goes.

            Usage: topo network disconnect [OPTIONS] <NETWORK> <TARGET>

            Arguments:
              <NETWORK>
                      the network

              <TARGET>
                      the container: as it was connected, by another name, or by its endpoint's id

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network rm --help
            Removes container networks.

            One with containers connected to it is refused, unless --force disconnects them first.

            Usage: topo network rm [OPTIONS] <NETWORK>...

            Arguments:
              <NETWORK>...
                      the networks

            Options:
                  --force
                      disconnect their containers first

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network repair --help
            Puts back what of container networks was flushed or changed.

            Rules that somebody flushed, settings that somebody changed; no container notices.

            Usage: topo network repair [OPTIONS] [NETWORK]...

            Arguments:
              [NETWORK]...
                      the networks; all unless given

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
            $ topo network restore --help
            Builds container networks again after a restart of the machine.

            Addresses stay with those that had them: a container that is there again under the same name or path
            is connected again; the others keep theirs until they are disconnected.

            Usage: topo network restore [OPTIONS] [NETWORK]...

            Arguments:
              [NETWORK]...
                      the networks; all unless given

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --rm
                      Take the lab down at the end

                  --keep
                      Keep what was built even if the script fails

                  --sandbox
                      Build the lab in a private machine of its own (always so without root)

                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON

                  --name <NAME>
                      Name the lab
        "#]]);
    });
}

#[test]
fn words_that_are_missing() {
    in_network_world("", |w, _| {
        w.session(expect![[r#"
            $ topo network create
            --- stderr
            error: the following required arguments were not provided:
              <NETWORK>

            Usage: topo network create <NETWORK>

            For more information, try '--help'.
            --- exit code 2
            $ topo network connect web
            --- stderr
            error: the following required arguments were not provided:
              <TARGET>

            Usage: topo network connect <NETWORK> <TARGET>

            For more information, try '--help'.
            --- exit code 2
            $ topo network rm
            --- stderr
            error: the following required arguments were not provided:
              <NETWORK>...

            Usage: topo network rm <NETWORK>...

            For more information, try '--help'.
            --- exit code 2
            $ topo network crate web
            --- stderr
            error: unrecognized subcommand 'crate'

              tip: a similar subcommand exists: 'create'

            Usage: topo network <COMMAND>

            For more information, try '--help'.
            --- exit code 2
            $ topo network create web --subent 10.0.0.0/24
            --- stderr
            error: unexpected argument '--subent' found

              tip: a similar argument exists: '--subnet'

            Usage: topo network create --subnet <SUBNET> <NETWORK>

            For more information, try '--help'.
            --- exit code 2
            $ topo network create web --mtu x
            --- stderr
            error: invalid value 'x' for '--mtu <N>': not a whole number

            For more information, try '--help'.
            --- exit code 2
            $ topo network create web --label novalue
            --- stderr
            error: invalid value 'novalue' for '--label <K=V>': not a key and its value, as in `key=value`

            For more information, try '--help'.
            --- exit code 2
        "#]]);
    });
}
