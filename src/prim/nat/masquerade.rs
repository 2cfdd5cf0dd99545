//! Source translation: what leaves a router bears the router's address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rhai::plugin::*;
use rhai::{Dynamic, Map};

use super::firewalls::ask_let_through;
use super::ruleset::{self, AddRules, LabTable};
use crate::lab::Lab;
use crate::net::nft::{Action, ChainKind, CtState, Hook, Match, Peer, Rule, Through};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{self, DevOrName, Subnet};
use crate::state::{Error, Place, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "masquerade",
    about: "Source translation: what leaves a router bears the router's address.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[MasqueradeOptions::SET, SnatOptions::SET],
};

options! {
    /// Options of `masquerade`.
    pub struct MasqueradeOptions of "masquerade" {
        /// The device by which it leaves; any unless given.
        out: DevOrName,
        /// The device by which it does not leave: that of the network itself.
        not_out: DevOrName,
    }
}

options! {
    /// Options of `snat`.
    pub struct SnatOptions of "snat" {
        /// The address that what leaves gets as its source.
        to: IpAddr,
        /// The device by which it leaves; any unless given.
        out: DevOrName,
        /// The device by which it does not leave.
        not_out: DevOrName,
        /// The network that it goes to; any unless given.
        dst: Subnet,
    }
}

/// The priority of the chain that drops what can't be translated: just before what is translated.
const BEFORE_TRANSLATION: i32 = 99;

struct Translation {
    from: IpNetwork,
    action: Action,
    out: Option<DevOrName>,
    not_out: Option<DevOrName>,
    dst: Option<IpNetwork>,
}

fn translate(lab: &mut Lab, netns: &NetnsHandle, what: String, wanted: Translation, place: &Place) -> Result<()> {
    let at = netns.living(lab)?;
    let mut matches = vec![Match::Src { net: wanted.from, not: false }];
    if let Some(dst) = wanted.dst {
        if dst.is_ipv4() != wanted.from.is_ipv4() {
            return Err(Error::invalid(what).because(format!("`{dst}` is of the other family")));
        }
        matches.push(Match::Dst { net: dst, not: false });
    }
    for (dev, not) in [(&wanted.out, false), (&wanted.not_out, true)] {
        if let Some(dev) = dev {
            matches.push(Match::OutDev { name: ruleset::dev_name(lab, &at, dev)?, not });
        }
    }
    let table = LabTable::of(lab, &at)?;
    table.ask(lab, place)?;
    let mut step = AddRules::new(lab, table.clone(), what);
    step.chains.push(table.postrouting());
    step.rules.push(("postrouting".into(), Rule { counter: true, ..Rule::new(matches.clone(), wanted.action) }));
    // The kernel translates packets of connections alone: one that belongs to none would leave with its inner source
    // (net/netfilter/nf_nat_core.c, nf_nat_inet_fn). A chain for it alone: no rule that accepts comes before it.
    step.chains.push(table.base_chain("untranslated", ChainKind::Filter, Hook::Postrouting, BEFORE_TRANSLATION));
    let invalid = [matches, vec![Match::CtState(vec![CtState::Invalid])]].concat();
    step.rules.push(("untranslated".into(), Rule { counter: true, ..Rule::new(invalid, Action::Drop) }));
    lab.ask(step, place.clone())?;
    let peer = || Peer::Net(wanted.from);
    ask_let_through(lab, &at, vec![Through::From(peer()), Through::Replies(peer())], place)
}

/// Reads the network of a call.
fn network(doing: &str, value: Dynamic) -> Result<IpNetwork> {
    units::argument::<Subnet>(doing, value).map(|subnet| subnet.0)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Makes what comes from a network and leaves a namespace bear the address of the device by which it leaves. Where another's
    /// firewall on the host drops what it forwards, this is let through there, until the lab goes. The kernel can't translate a
    /// packet that belongs to no connection, so that one is dropped.
    ///
    /// Like `nft add rule … ip saddr SUBNET oifname != DEV masquerade`, and `… ct state invalid drop` in a filter at `postrouting`.
    ///
    /// Fails with `invalid` for what is no network, and with `unsupported` where the kernel has no nf_tables.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// let inside = netns("in");
    /// let outside = netns("out");
    /// veth(r["lan0"], inside["eth0"]);
    /// veth(r["wan0"], outside["eth0"]);
    /// r["lan0"].addr("10.0.0.1/24");
    /// inside["eth0"].addr("10.0.0.2/24");
    /// inside.route("default", #{ via: "10.0.0.1" });
    /// r["wan0"].addr("192.0.2.1/24");
    /// outside["eth0"].addr("192.0.2.2/24");
    /// r.forward(true);
    /// r.masquerade("10.0.0.0/24", #{ out: r["wan0"] });
    /// assert(inside.ping("192.0.2.2").ok);
    /// ```
    #[rhai_fn(name = "masquerade", return_raw)]
    pub fn masquerade_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        subnet: Dynamic,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let MasqueradeOptions { out, not_out } = MasqueradeOptions::parse(options)?;
            let from = network("masquerade", subnet)?;
            let wanted = Translation { from, action: Action::Masquerade, out, not_out, dst: None };
            translate(lab, &netns, format!("masquerade `{from}`"), wanted, &place)
        })?;
        Ok(netns)
    }

    /// Masquerades a network, by whatever device it leaves.
    #[rhai_fn(name = "masquerade", return_raw)]
    pub fn masquerade(ctx: NativeCallContext, netns: NetnsHandle, subnet: Dynamic) -> RhaiResultOf<NetnsHandle> {
        masquerade_with(ctx, netns, subnet, Map::new())
    }

    /// Makes what comes from a network and leaves a namespace bear an address of your choice.
    ///
    /// Like `nft add rule … ip saddr SUBNET oifname DEV snat ip to ADDRESS`.
    ///
    /// Fails with `invalid` where `to` is not given or of the other family.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// let inside = netns("in");
    /// let outside = netns("out");
    /// veth(r["lan0"], inside["eth0"]);
    /// veth(r["wan0"], outside["eth0"]);
    /// r["lan0"].addr("10.0.0.1/24");
    /// inside["eth0"].addr("10.0.0.2/24");
    /// inside.route("default", #{ via: "10.0.0.1" });
    /// r["wan0"].addr("192.0.2.1/24").addr("192.0.2.9/24");
    /// outside["eth0"].addr("192.0.2.2/24");
    /// r.forward(true);
    /// r.snat("10.0.0.0/24", #{ to: "192.0.2.9", out: "wan0" });
    /// assert(inside.ping("192.0.2.2").ok);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn snat(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        subnet: Dynamic,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let SnatOptions { to, out, not_out, dst } = SnatOptions::parse(options)?;
            let from = network("snat", subnet)?;
            let what = format!("translate the source of `{from}`");
            let Some(to) = to else {
                return Err(Error::invalid(what).because("`to` is not given: the address that it gets"));
            };
            if to.is_ipv4() != from.is_ipv4() {
                return Err(Error::invalid(what).because(format!("`{to}` is of the other family")));
            }
            let dst = dst.map(|subnet| subnet.0);
            let wanted = Translation { from, action: Action::Snat { to }, out, not_out, dst };
            translate(lab, &netns, format!("{what} to `{to}`"), wanted, &place)
        })?;
        Ok(netns)
    }
}
