//! The help of `topo network …`, and what is said of words that are missing or misspelt.

use expect_test::expect;

use super::in_network_world;
use crate::cli::Terminal;

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
              inspect     Shows all about a container network, or about one container in it, as JSON
              ls          Lists the container networks
              prune       Removes the container networks that nothing is connected to
              repair      Puts back what of container networks others deleted or changed
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
              inspect     Shows all about a container network, or about one container in it, as JSON
              ls          Lists the container networks
              prune       Removes the container networks that nothing is connected to
              repair      Puts back what of container networks others deleted or changed
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
                      its addresses, such as 10.5.0.0/24; of several, containers get one of each; a free /24
                      unless given

                  --gateway <ADDRESS>
                      the host's address in a subnet; the first one unless given

                  --range <RANGE>
                      what containers get of a subnet, such as 10.5.0.100-10.5.0.199; all unless given

                  --reserve <RANGE>
                      an address or a range of them that no container gets

                  --route <ROUTE>
                      a route of the containers, through an address of a subnet: 10.9.0.0/16=10.5.0.7

                  --no-default-route
                      the containers get no default route

                  --driver <DRIVER>
                      bridge, routed, isolated, macvlan, ipvlan, or your own

                      [default: bridge]

                  --ipv6 <SUBNET>
                      IPv6 addresses beside those of --subnet

                  --internal
                      no way out, and no way in

                  --mtu <N>
                      the MTU of its devices in bytes; at least 1280 where it has IPv6

                  --parent <DEV>
                      the device of the host that macvlan and ipvlan share

                  --label <K=V>
                      a label, to find it by

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
            $ topo network ls --help
            Lists the container networks.

            The state is up, damaged or down. It is what the host tells: its devices, addresses and nftables
            tables, and whether containers have ended. `topo network inspect` looks at everything.

            With --json it prints a list of objects: `name`, `driver`, `state`, `internal`, `subnet` and
            `gateway` (lists), `endpoints` (how many), `created` (in seconds since 1970) and `labels` (an
            object).

            Usage: topo network ls [OPTIONS]

            Options:
                  --quiet
                      print the names alone

                  --filter <FILTER>
                      those that fit: label=KEY, label=KEY=VALUE, name=PART, driver=DRIVER or state=STATE

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
            $ topo network inspect --help
            Shows all about a container network, or about one container in it, as JSON.

            Its subnets, its containers with their addresses and ports, and its drift: what the kernel no longer
            has as it should be, and `topo network repair` puts back. The state is up, damaged or down.

            Usage: topo network inspect [OPTIONS] <NETWORK> [TARGET]

            Arguments:
              <NETWORK>
                      the network

              [TARGET]
                      a container in it, named as for `disconnect`: it alone is looked at

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
            $ topo network connect --help
            Connects a container to a network.

            The container gets a device, an address, a way out where it has none, and published ports. One that
            is connected already keeps its address; asking for another one is refused. Of several networks one
            gives the default route, and when that is left, another one does.

            Usage: topo network connect [OPTIONS] <NETWORK> <TARGET>

            Arguments:
              <NETWORK>
                      the network

              <TARGET>
                      the container: a process in it, the path of its netns, or the netns's name

            Options:
                  --ip <ADDRESS>
                      its address, or one of each subnet; the next free ones unless given

                  --mac <MAC>
                      the hardware address of its device

                  --publish <PORTS>
                      [HOSTIP:][PORT:]PORT[/PROTO], of the host and of the container, or ranges:
                      8000-8010:9000-9010/udp; a free port of the host unless given

                  --sysctl <K=V>
                      a setting of the container, such as net.ipv4.conf.IFNAME.log_martians=1; IFNAME is its
                      device

                  --alias <ALIAS>
                      another name for it, for `topo network disconnect`

                  --gateway-priority <PRIORITY>
                      of its networks that of the highest number gives the default route, 0 unless given; `none`
                      never does

              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
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
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
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
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
            $ topo network repair --help
            Puts back what of container networks others deleted or changed.

            A bridge or a cable with all that was on it, rules that somebody flushed, settings that somebody
            changed. A container that is there again under the name of one that has ended is connected in its
            place. The exit code is 1 if something could not be put back.

            Usage: topo network repair [OPTIONS] [NETWORK]...

            Arguments:
              [NETWORK]...
                      the networks; all unless given

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
            $ topo network restore --help
            Builds container networks again after a restart of the machine.

            Addresses stay with those that had them: a container that is there again under the same name or path
            is connected again; the others keep theirs until they are disconnected. Of a network that is up,
            what others deleted or changed is put back.

            Usage: topo network restore [OPTIONS] [NETWORK]...

            Arguments:
              [NETWORK]...
                      the networks; all unless given

            Options:
              -h, --help
                      Print help (see a summary with '-h')

            Run options:
                  --trace
                      Print each step with the commands that do the same

                  --json
                      Print the result as JSON
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
