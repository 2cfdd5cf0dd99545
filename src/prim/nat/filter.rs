//! Filters: what may pass a namespace, come into it or leave it; and the firewalls of others, which have their say too.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use super::firewalls::{self, ask_let_through};
use super::ruleset::{self, AddRules, FAMILY, LabTable, enter, in_netns};
use crate::lab::{Footprint, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::net::nft::{
    self, Action, Base, Batch, Chain, ChainKind, CtState, Hook, L4Proto, Match, Peer, Policy, Rule, Through,
};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::value::handles::{Dev, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::ports::{Ports, Proto};
use crate::prim::value::units::{DevOrName, FromScript, Mark, Subnet};
use crate::state::{Error, NetnsRef, Place, Result, lab_of_mark, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "filter",
    about: "Filters: what may pass a namespace, come into it or leave it.",
    functions: exported_manifest!(functions),
    steps: &[
        step_sort!(SetPolicy),
        step_sort!(firewalls::LetThrough),
        step_sort!(ruleset::AddTable),
        step_sort!(AddRules),
    ],
    options: &[FilterOptions::SET, ThroughOptions::SET],
};

options! {
    /// Options of `filter`.
    pub struct FilterOptions of "filter" {
        /// The protocol: a word such as `tcp`, `udp`, `icmp`, `icmpv6`; any unless given.
        proto: FilterProto,
        /// The destination port, or a range of them.
        port: Ports,
        /// The source port, or a range of them.
        src_port: Ports,
        /// The network that it comes from; one address is `10.0.0.5/32`.
        src: Subnet,
        /// The network that it goes to.
        dst: Subnet,
        /// The device by which it comes in.
        in_dev: DevOrName,
        /// The device by which it does not come in.
        not_in_dev: DevOrName,
        /// The device by which it leaves.
        out: DevOrName,
        /// The device by which it does not leave.
        not_out: DevOrName,
        /// What its connection is: a list of `new`, `established`, `related`, `invalid`, or `dnat` alone: to a published port.
        state: States,
        /// The firewall mark that they get, with the verdict `mark`.
        mark: Mark,
        /// Whether TCP connections on the way `forward` announce segments that fit the path's MTU, or the most bytes of one; with
        /// `accept`. False unless given.
        clamp_mss: ClampMss,
    }
}

options! {
    /// Options of `let_through`.
    pub struct ThroughOptions of "let_through" {
        /// That connections begun from elsewhere pass too, not only the answers to those from there.
        incoming: bool,
    }
}

/// A protocol to filter by.
#[derive(Debug, Clone, Copy)]
pub struct FilterProto(pub L4Proto);

impl FromScript for FilterProto {
    const WHAT: &'static str = r#""tcp", "udp", "sctp", "icmp", "icmpv6" or a protocol's number"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Ok(number) = value.as_int() {
            let number = u8::try_from(number).map_err(|_| String::new())?;
            return Ok(FilterProto(L4Proto::Other(number)));
        }
        let text = value.clone().into_string().map_err(|_| String::new())?;
        match text.as_str() {
            "icmp" => Ok(FilterProto(L4Proto::Icmp)),
            "icmpv6" => Ok(FilterProto(L4Proto::Icmpv6)),
            _ => Proto::from_script(value).map(|proto| FilterProto(proto.0)),
        }
    }
}

/// What the largest segment of a connection is limited to.
#[derive(Debug, Clone, Copy)]
pub struct ClampMss(Option<Option<u16>>);

impl FromScript for ClampMss {
    // 536 bytes is what every host takes (RFC 9293, 3.7.1).
    const WHAT: &'static str = "true, false or a number of bytes from 536 to 65495";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        if let Ok(on) = value.as_bool() {
            return Ok(ClampMss(on.then_some(None)));
        }
        let bytes = value.as_int().ok().filter(|bytes| (536..=65_495).contains(bytes)).ok_or_else(String::new)?;
        Ok(ClampMss(Some(u16::try_from(bytes).ok())))
    }
}

/// States of connections.
#[derive(Debug, Clone)]
pub struct States(Match);

impl FromScript for States {
    const WHAT: &'static str = r#"a list of "new", "established", "related", "invalid", or "dnat" alone"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = match value.clone().into_string() {
            Ok(text) => vec![text],
            Err(_) => {
                let list = value.into_array().map_err(|_| String::new())?;
                let texts: Option<Vec<String>> = list.into_iter().map(|word| word.into_string().ok()).collect();
                texts.ok_or_else(String::new)?
            }
        };
        if list == ["dnat"] {
            return Ok(States(Match::CtStatusDnat));
        }
        let state = |word: &String| match word.as_str() {
            "new" => Ok(CtState::New),
            "established" => Ok(CtState::Established),
            "related" => Ok(CtState::Related),
            "invalid" => Ok(CtState::Invalid),
            other => Err(format!("`{}` is none of them", name::shown(other))),
        };
        let states = list.iter().map(state).collect::<std::result::Result<Vec<_>, _>>()?;
        if states.is_empty() { Err(String::new()) } else { Ok(States(Match::CtState(states))) }
    }
}

fn hook_of(doing: &str, text: &str, marks: bool) -> Result<Hook> {
    match text {
        "prerouting" if marks => Ok(Hook::Prerouting),
        "input" | "forward" if marks => Err(Error::invalid(doing)
            .because(format!("the route is chosen before the way `{text}`, and a mark comes too late for it"))
            .hint("mark what comes in on the way `prerouting`, and what the netns sends on the way `output`")),
        "input" => Ok(Hook::Input),
        "forward" => Ok(Hook::Forward),
        "output" => Ok(Hook::Output),
        _ => Err(Error::invalid(doing)
            .because(format!("there is no way `{}` through a netns", name::shown(text)))
            .hint(if marks { "it is `prerouting` or `output`" } else { "it is `input`, `forward` or `output`" })),
    }
}

fn action_of(doing: &str, text: &str) -> Result<Action> {
    match text {
        "accept" => Ok(Action::Accept),
        "drop" => Ok(Action::Drop),
        "reject" => Ok(Action::Reject),
        _ => Err(Error::invalid(doing)
            .because(format!("there is no verdict `{}`", name::shown(text)))
            .hint("it is `accept`, `drop`, `reject` or `mark`")),
    }
}

/// Returns the chain that limits segments: before those that filter, so that what they decide on has been through it.
fn clamp_chain(table: &LabTable) -> Chain {
    table.base_chain("clamp_mss", ChainKind::Filter, Hook::Forward, MANGLE)
}

/// Returns the chain that marks at a hook; at `output` it is of the kind that has the route looked up again.
fn mark_chain(table: &LabTable, hook: Hook) -> Chain {
    let kind = if hook == Hook::Output { ChainKind::Route } else { ChainKind::Filter };
    table.base_chain(&format!("mark_{hook}"), kind, hook, MANGLE)
}

/// NF_IP_PRI_MANGLE of linux/netfilter_ipv4.h: behind connection tracking, before the translation of destinations.
const MANGLE: i32 = -150;

fn matches_of(lab: &mut Lab, at: &NetnsRef, hook: Hook, doing: &str, options: FilterOptions) -> Result<Vec<Match>> {
    let mut matches = Vec::new();
    matches.extend(options.proto.map(|proto| Match::L4Proto(proto.0)));
    let has_ports = matches!(options.proto, None | Some(FilterProto(L4Proto::Tcp | L4Proto::Udp | L4Proto::Sctp)));
    if !has_ports && (options.port.is_some() || options.src_port.is_some()) {
        return Err(Error::invalid(doing).because("a port is given, and the protocol has none"));
    }
    if options.proto.is_none() && (options.port.is_some() || options.src_port.is_some()) {
        return Err(Error::invalid(doing).because("a port is given without a protocol").hint("add `proto: \"tcp\"`"));
    }
    if let (Some(src), Some(dst)) = (options.src, options.dst)
        && src.0.is_ipv4() != dst.0.is_ipv4()
    {
        return Err(Error::invalid(doing).because("`src` and `dst` are of two families"));
    }
    matches.extend(options.src.map(|net| Match::Src { net: net.0, not: false }));
    matches.extend(options.dst.map(|net| Match::Dst { net: net.0, not: false }));
    matches.extend(options.src_port.map(|ports| Match::SrcPort(ports.0)));
    matches.extend(options.port.map(|ports| Match::DstPort(ports.0)));
    for (dev, not, comes_in) in [
        (&options.in_dev, false, true),
        (&options.not_in_dev, true, true),
        (&options.out, false, false),
        (&options.not_out, true, false),
    ] {
        let Some(dev) = dev else { continue };
        let lacks = if comes_in { hook == Hook::Output } else { matches!(hook, Hook::Input | Hook::Prerouting) };
        if lacks {
            let which = if comes_in { "incoming" } else { "outgoing" };
            return Err(Error::invalid(doing).because(format!("packets in `{hook}` have no {which} device")));
        }
        let name = ruleset::dev_name(lab, at, dev)?;
        matches.push(if comes_in { Match::InDev { name, not } } else { Match::OutDev { name, not } });
    }
    matches.extend(options.state.map(|states| states.0));
    Ok(matches)
}

/// Sets what becomes of packets that no rule of a chain decided on.
#[derive(Debug, Serialize, Deserialize)]
struct SetPolicy {
    table: LabTable,
    chain: Chain,
    policy: Policy,
}

impl SetPolicy {
    fn set(&self, kernel: &mut Kernel, policy: Policy) -> net::Result<()> {
        let netns = kernel.netns(&self.table.netns)?;
        let base = self.chain.base.map(|base| Base { policy, ..base });
        let mut batch = Batch::new();
        batch.add_chain(&Chain { base, ..self.chain.clone() });
        batch.commit(&netns)
    }
}

impl StepSort for SetPolicy {
    const WORD: &'static str = "nft-policy";
}

impl Step for SetPolicy {
    fn doing(&self) -> String {
        format!("set the policy of `{}` to {}{}", self.chain.name, self.policy, in_netns(&self.table.netns))
    }

    fn like(&self) -> Vec<String> {
        let (enter, table, chain) = (enter(&self.table.netns), &self.table.name, &self.chain.name);
        vec![format!(
            "{enter}nft add chain inet {table} {chain} '{{ type filter hook {chain} priority 0; policy {}; }}'",
            self.policy
        )]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.table.netns],
            lives_in_table: Some(self.table.reference()),
            sets: vec![(self.table.netns.no, format!("policy of {}", self.chain.name).into())],
            ..Footprint::default()
        }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| self.set(kernel, self.policy))
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        ruleset::no_nftables(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        if self.table.find(kernel)?.is_none() {
            return Ok(());
        }
        self.set(kernel, Policy::Accept)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        if self.table.find(kernel)?.is_none() {
            return Ok(false);
        }
        let same = |chain: &Chain| {
            chain.table == self.table.name
                && chain.name == self.chain.name
                && chain.base.is_some_and(|base| base.policy == self.policy)
        };
        Ok(kernel.nft_chains(&self.table.netns)?.iter().any(same))
    }
}

fn add(lab: &mut Lab, netns: &NetnsHandle, way: &str, verdict: &str, options: Map, place: &Place) -> Result<()> {
    let at = netns.living(lab)?;
    let doing = format!("{} what goes the way `{}`", name::shown(verdict), name::shown(way));
    let wrong = |because: &str| Err(Error::invalid(doing.clone()).because(because));
    let marks = verdict == "mark";
    let hook = hook_of(&doing, way, marks)?;
    let options = FilterOptions::parse(options)?;
    let action = match (marks, options.mark) {
        (true, Some(mark)) => Action::SetMark(mark.0),
        (true, None) => return wrong("it needs `mark`, the number that packets are marked with"),
        (false, Some(_)) => return wrong("`mark` is what the verdict `mark` sets"),
        (false, None) => action_of(&doing, verdict)?,
    };
    let clamp = options.clamp_mss.and_then(|clamp| clamp.0);
    let proto = options.proto.map(|proto| proto.0);
    if clamp.is_some() && (hook != Hook::Forward || action != Action::Accept) {
        return wrong("`clamp_mss` is for what is accepted on the way `forward`");
    }
    if clamp.is_some() && proto.is_some_and(|proto| proto != L4Proto::Tcp) {
        return wrong("`clamp_mss` is for TCP, and `proto` is another one");
    }
    let matches = matches_of(lab, &at, hook, &doing, options)?;
    let table = LabTable::of(lab, &at)?;
    table.ask(lab, place)?;
    let mut step = AddRules::new(lab, table.clone(), doing);
    let chain = if marks { mark_chain(&table, hook) } else { table.filter_chain(hook) };
    let mut rules = vec![(chain, matches.clone(), action)];
    if let Some(bytes) = clamp {
        let tcp = [Match::L4Proto(L4Proto::Tcp), Match::TcpSyn];
        let matches = matches.into_iter().filter(|wanted| *wanted != tcp[0]).chain(tcp.clone()).collect();
        rules.push((clamp_chain(&table), matches, Action::ClampMss(bytes)));
    }
    for (chain, matches, action) in rules {
        step.rules.push((chain.name.clone(), Rule { counter: true, ..Rule::new(matches, action) }));
        step.chains.push(chain);
    }
    lab.ask(step, place.clone())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sets what becomes of packets on one of three ways through a namespace, `input`, `forward` or `output`, that no rule
    /// decided on: `accept`, as at first, or `drop`.
    ///
    /// Like `nft add chain … '{ type filter hook forward priority 0; policy drop; }'`.
    ///
    /// Fails with `invalid` for another way or policy.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.filter("input", "drop");
    /// r.filter("input", "accept", #{ in_dev: "lo" });
    /// assert(r.ping("127.0.0.1").ok);
    /// ```
    #[rhai_fn(name = "filter", return_raw)]
    pub fn policy(ctx: NativeCallContext, netns: NetnsHandle, way: &str, policy: &str) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let doing = format!("set the policy of `{}`", name::shown(way));
            let hook = hook_of(&doing, way, false)?;
            let policy = match policy {
                "accept" => Policy::Accept,
                "drop" => Policy::Drop,
                other => {
                    return Err(Error::invalid(doing)
                        .because(format!("there is no policy `{}`", name::shown(other)))
                        .hint("it is `accept` or `drop`; a rule without conditions rejects: `filter(way, \"reject\", #{})`"));
                }
            };
            let table = LabTable::of(lab, &at)?;
            table.ask(lab, &place)?;
            let chain = table.filter_chain(hook);
            lab.ask(SetPolicy { table, chain, policy }, place)
        })?;
        Ok(netns)
    }

    /// Adds a rule on a way through a namespace: what meets all conditions is accepted, dropped or rejected. Rules count in the
    /// order of their making.
    ///
    /// With the verdict `mark`, packets get the firewall mark `mark` before their route is chosen, and go on: on the way `prerouting` what
    /// comes in, on the way `output` what the namespace sends, which keeps the source address that it has by then. `rule` with
    /// `fwmark` sends them another way. With `clamp_mss`, TCP
    /// connections through the namespace use segments that fit, also where a router drops what is too large and says nothing.
    ///
    /// Like `nft add rule … tcp dport 25 meta mark set 7`, or `… tcp flags syn / syn,rst tcp option maxseg size set rt mtu`.
    ///
    /// Fails with `invalid` for another way or verdict, or conditions that can't be met there.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.filter("forward", "accept", #{ proto: "tcp", clamp_mss: true });
    /// r.filter("output", "mark", #{ proto: "tcp", port: 25, mark: 7 });
    /// r.rule(#{ fwmark: 7, table: 102 });
    /// assert(r.filters().some(|f| f.rule.contains("tcp dport 25") && f.rule.contains("meta mark set")));
    /// ```
    #[rhai_fn(name = "filter", return_raw)]
    pub fn filter(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        way: &str,
        verdict: &str,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| add(lab, &netns, way, verdict, options, &place))?;
        Ok(netns)
    }

    /// Lets what a device or a network of a namespace sends, and the answers to it, through the firewalls of others that would
    /// drop it: Docker's, firewalld's, one's own. What one of their rules drops stays dropped: passed are a chain's policy and a last
    /// rule that drops all. Taken back with the lab. `masquerade` and `dnat` do it themselves.
    ///
    /// Like `iptables -A FORWARD -i DEV -j ACCEPT`.
    ///
    /// Fails with `unsupported` where the kernel has no nf_tables. A firewall that can't be changed is warned of.
    ///
    /// ```rhai
    /// let br = bridge("br0");
    /// host.let_through(br);
    /// ```
    #[rhai_fn(name = "let_through", return_raw)]
    pub fn let_through(ctx: NativeCallContext, netns: NetnsHandle, dev: Dev) -> RhaiResultOf<NetnsHandle> {
        let_through_with(ctx, netns, dev, Map::new())
    }

    /// Lets a device's packets through the firewalls of others, with options.
    #[rhai_fn(name = "let_through", return_raw)]
    pub fn let_through_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        dev: Dev,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let options = ThroughOptions::parse(options)?;
            let at = netns.living(lab)?;
            let name = ruleset::dev_name(lab, &at, &DevOrName::Dev(dev))?;
            let peer = || Peer::Dev(name.clone());
            let back = if options.incoming.unwrap_or(false) { Through::To(peer()) } else { Through::Replies(peer()) };
            ask_let_through(lab, &at, vec![Through::From(peer()), back], &place)
        })?;
        Ok(netns)
    }

    /// Returns the rules that labs have in a namespace, as maps with `lab`, `chain`, `rule` and, where they count, `packets` and
    /// `bytes`.
    ///
    /// Like `nft list ruleset`, of the tables of labs.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.filter("input", "drop", #{ proto: "tcp", port: 22 });
    /// assert(r.filters()[0].rule.contains("tcp dport 22") && r.filters()[0].packets == 0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn filters(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let failed = |source: net::Error| Error::kernel(format!("list the rules of `{}`", at.name), &source);
            let (kernel, _) = lab.settled()?;
            let netns = kernel.netns(&at).map_err(failed)?;
            let mut found = Array::new();
            for table in nft::list_tables(&netns).map_err(failed)?.iter().filter(|table| ruleset::is_a_labs(table)) {
                let owner = table.comment.as_deref().and_then(lab_of_mark).unwrap_or_default();
                for rule in nft::list_rules(&netns, FAMILY, &table.name).map_err(failed)? {
                    let count = |number: fn(&nft::Counter) -> u64| {
                        let number = rule.counter.as_ref().map(number);
                        number.and_then(|number| i64::try_from(number).ok()).map_or(Dynamic::UNIT, Dynamic::from)
                    };
                    found.push(Dynamic::from_map(Map::from_iter([
                        ("lab".into(), owner.to_string().into()),
                        ("chain".into(), rule.at.chain.clone().into()),
                        ("rule".into(), rule.text.clone().into()),
                        ("packets".into(), count(|counter| counter.packets)),
                        ("bytes".into(), count(|counter| counter.bytes)),
                    ])));
                }
            }
            Ok(found)
        })
    }
}
