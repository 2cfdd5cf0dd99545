//! Links that go together, by the number of a group (`ip link set group`, rtnl_group_dellink of net/core/rtnetlink.c).

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::Link;
use crate::net::{Netlink, Result};

/// Where the numbers begin of groups that last no longer than a deletion; each process has one of its own.
const OURS: u32 = 0x4000_0000;

/// Deletes links, of veths both ends, in one go: the kernel waits once for all, and not 20 ms for each. `all` are those of the namespace,
/// which tell the group that is free. A link that is gone already is passed over; one that can't be deleted keeps all.
///
/// Like `ip link set DEV group N` for each and `ip link del group N`.
pub fn delete_together(rtnl: &Netlink, all: &[Link], indexes: &[u32]) -> Result<()> {
    let mut group = OURS | std::process::id();
    while all.iter().any(|link| link.group == group) {
        group += 1;
    }
    for index in indexes {
        let message = LinkUnspec::new_with_index(*index).link_group(group).build();
        match rtnl.change(&format!("group link {index}"), RouteNetlinkMessage::SetLink(message), 0) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let message = LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build();
    rtnl.change("delete links", RouteNetlinkMessage::DelLink(message), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::link;
    use crate::net::testing::{block_on, netns, said};

    #[test]
    fn links_go_together_and_others_stay() {
        let netns = netns();
        {
            let others = format!("link set six group {}\n", OURS | std::process::id());
            let pairs =
                ["one type veth peer name eins", "two type veth peer name zwei", "six type veth peer name sechs"];
            let made: String = pairs.iter().map(|pair| format!("link add {pair}\n")).collect();
            said(&netns, "ip -batch -", &format!("{made}{others}"));
        }
        block_on(async {
            let rtnl = Netlink::open(&netns).expect("a socket");
            let links = link::list(&rtnl).expect("listed");
            let index = |name: &str| links.iter().find(|link| link.name == name).expect("a link").index;
            delete_together(&rtnl, &links, &[index("one"), index("zwei"), 4_000_000]).expect("deleted");
            let left = link::list(&rtnl).expect("listed");
            let left: Vec<&str> = left.iter().map(|link| link.name.as_str()).filter(|name| *name != "lo").collect();
            assert_eq!(left, ["sechs", "six"]);
        });
    }
}
