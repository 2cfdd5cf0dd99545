//! All that rtnetlink knows of a namespace, to be compared before and after.

use serde::Serialize;

use crate::net::ip::{addr, neigh, route, rule};
use crate::net::{Address, Link, Neigh, Netlink, Result, Route, Rule, link};

/// The links, addresses, routes, rules and neighbours of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dump {
    /// Its links.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// The routes of all tables.
    pub routes: Vec<Route>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// The neighbours.
    pub neighbours: Vec<Neigh>,
}

/// Reads all of a namespace, one table after the other.
pub fn dump(rtnl: &Netlink) -> Result<Dump> {
    Ok(Dump {
        links: link::list(rtnl)?,
        addresses: addr::list(rtnl)?,
        routes: route::list(rtnl)?,
        rules: rule::list(rtnl)?,
        neighbours: neigh::list(rtnl)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{block_on, netns, netns_and_rtnl, pair};
    use crate::net::{AddrOptions, Change};

    #[test]
    fn it_shows_what_was_done_and_that_all_was_undone() {
        block_on(async {
            let (a, rtnl) = netns_and_rtnl();
            let b = netns();
            let before = dump(&rtnl).expect("a dump");
            pair(&rtnl, (&a, "eth0", 1001), (&b, "eth0", 1002)).await;
            link::change(&rtnl, 1001, &Change { up: Some(true), ..Change::default() }).expect("up");
            let net = "10.0.0.1/24".parse().expect("a network");
            addr::add(&rtnl, 1001, net, &AddrOptions::default()).expect("added");
            let during = dump(&rtnl).expect("a dump");
            assert!(during.links.len() == 2 && during.addresses.len() > before.addresses.len());
            assert!(during.routes.len() > before.routes.len());
            link::delete(&rtnl, 1001).expect("deleted");
            assert_eq!(dump(&rtnl).expect("a dump"), before);
            let json = serde_json::to_value(&before).expect("JSON");
            assert_eq!(json["links"][0]["name"], "lo");
        });
    }
}
