//! Policy rules: which routing table a packet is looked up in.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, Lab, OWNER_PROTOCOL, Op, Outcome, Step, StepSort};
use crate::net::{self, Rule, RuleKind};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, place_of, with_lab};
use crate::prim::iproute2::ip;
use crate::prim::nat::filter::FilterProto;
use crate::prim::value::handles::{self, NetnsHandle};
use crate::prim::value::options::options;
use crate::prim::value::ports::Ports;
use crate::prim::value::units::{DevOrName, FromScript, Mark, Metric, PrefixLength, Subnet, Table};
use crate::prim::value::value::Net;
use crate::state::{Error, NetnsRef, Place, Result, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "rule",
    about: "Policy rules of a namespace.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(AddRule)],
    options: &[RuleOptions::SET],
};

options! {
    /// Options of `rule`.
    pub struct RuleOptions of "rule" {
        /// The source addresses that it is for.
        from: Subnet,
        /// The destination addresses that it is for.
        to: Subnet,
        /// The device that packets come in by.
        iif: DevOrName,
        /// The device that packets leave by.
        oif: DevOrName,
        /// The firewall mark that packets bear.
        fwmark: Mark,
        /// The protocol that packets are of: a word such as `tcp`, `udp`, `icmp`, or a number.
        proto: FilterProto,
        /// The source port, or a range of them.
        sport: Ports,
        /// The destination port, or a range of them.
        dport: Ports,
        /// The user whose process sends them, or a range of users.
        uid: Uids,
        /// The routing table in which they are looked up; `"main"`, 254, unless given.
        table: Table,
        /// Routes of the table whose prefix is at most so long don't count: with 0 all but the default route; all count unless given.
        suppress_prefixlength: PrefixLength,
        /// The lower, the sooner it is looked at; the kernel takes the next free one below unless given.
        priority: Metric,
        /// Whether packets are dropped without a word; false unless given.
        blackhole: bool,
        /// Whether packets are answered with "unreachable"; false unless given.
        unreachable: bool,
        /// Whether packets are answered with "prohibited"; false unless given.
        prohibit: bool,
        /// Whether it is for IPv6; as `from` and `to` say unless given, else false.
        ipv6: bool,
    }
}

/// Users by their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Uids((u32, u32));

impl FromScript for Uids {
    const WHAT: &'static str = r#"the number of a user, or a range such as "1000-1999""#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < u32::MAX);
        if let Ok(one) = value.as_int() {
            return number(&one.to_string()).map(|one| Uids((one, one))).ok_or_else(String::new);
        }
        let text = value.into_string().map_err(|_| String::new())?;
        let (from, to) = text.split_once('-').unwrap_or((&text, &text));
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Uids((from, to))),
            (Some(_), Some(_)) => Err("the range is the wrong way round".into()),
            _ => Err(String::new()),
        }
    }
}

/// Adds a policy rule.
#[derive(Debug, Serialize, Deserialize)]
struct AddRule {
    netns: NetnsRef,
    rule: Rule,
}

impl StepSort for AddRule {
    const WORD: &'static str = "rule";
}

impl Step for AddRule {
    fn doing(&self) -> String {
        let netns = if self.netns.no == 0 { String::new() } else { format!(" to netns `{}`", self.netns.name) };
        format!("add rule `{}`{netns}", self.rule.shown())
    }

    fn like(&self) -> Vec<String> {
        let family = if self.rule.v6 { " -6" } else { "" };
        vec![format!("{}{family} rule add {}", ip(&self.netns), self.rule.shown())]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], is_atomic: true, ..Footprint::default() }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        if self.netns.made {
            return Ok(());
        }
        // Another lab's, which an undo would take for ours.
        let rtnl = kernel.rtnl(&self.netns)?;
        let twin = net::ip::rule::list(&rtnl)?.iter().any(|known| self.rule.is(known));
        if twin { Err(net::Error::new(self.doing(), libc::EEXIST)) } else { Ok(()) }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let rtnl = kernel.rtnl(&self.netns)?;
            net::ip::rule::add(&rtnl, &self.rule)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let rtnl = kernel.rtnl(&self.netns)?;
        net::ip::rule::delete(&rtnl, &self.rule)
    }

    fn is_held(&self, kernel: &mut Kernel, lab: Outcome<'_>) -> net::Result<bool> {
        if !lab.has_netns(&self.netns) {
            return Ok(true);
        }
        Ok(kernel.rules(&self.netns)?.iter().any(|known| self.rule.is(known)))
    }
}

fn dev_name(lab: &mut Lab, netns: &NetnsHandle, dev: Option<DevOrName>) -> Result<Option<String>> {
    Ok(match dev {
        None => None,
        // A rule may name a device that comes later: the kernel matches by name.
        Some(DevOrName::Name(text)) => {
            name::check("device", &text)?;
            Some(name::kernel_name(&text))
        }
        Some(DevOrName::Dev(dev)) => {
            let dev = dev.existing(lab)?.dev;
            if dev.netns.no != netns.0.no {
                return Err(Error::invalid("add rule").because(format!("{} is in another netns", dev.shown())));
            }
            Some(name::kernel_name(&dev.name))
        }
    })
}

fn add(lab: &mut Lab, netns: &NetnsHandle, options: Map, place: Place) -> Result<()> {
    let options = RuleOptions::parse(options)?;
    let at = netns.living(lab)?;
    let wrong = |because: &str| Err(Error::invalid("add rule").because(because));
    let families: Vec<bool> = [options.from, options.to].iter().flatten().map(|subnet| subnet.0.is_ipv6()).collect();
    let v6 = options.ipv6.or(families.first().copied()).unwrap_or(false);
    if families.iter().any(|family| *family != v6) {
        return wrong("`from`, `to` and `ipv6` are not of one family");
    }
    let kinds = [
        (options.blackhole, RuleKind::Blackhole),
        (options.unreachable, RuleKind::Unreachable),
        (options.prohibit, RuleKind::Prohibit),
    ];
    let chosen: Vec<RuleKind> =
        kinds.into_iter().filter(|(given, _)| *given == Some(true)).map(|(_, kind)| kind).collect();
    let kind = match (chosen.as_slice(), options.table) {
        ([], _) => RuleKind::ToTable,
        ([kind], None) => *kind,
        _ => return wrong("it says more than one thing to do with the packets"),
    };
    if kind != RuleKind::ToTable && options.suppress_prefixlength.is_some() {
        return wrong("`suppress_prefixlength` is about the routes of a table, and it asks none");
    }
    let proto = options.proto.map(|proto| proto.0.number());
    // What the kernel looks for has no ports then, and no packet matches.
    let has_ports =
        proto.is_none_or(|proto| [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_SCTP].contains(&proto.into()));
    if !has_ports && (options.sport.is_some() || options.dport.is_some()) {
        return wrong("a port is given, and the protocol has none");
    }
    let ports = |ports: Option<Ports>| ports.map(|Ports(range)| (range.from, range.to));
    let rule = Rule {
        v6,
        from: options.from.map(|subnet| subnet.0),
        to: options.to.map(|subnet| subnet.0),
        iif: dev_name(lab, netns, options.iif)?,
        oif: dev_name(lab, netns, options.oif)?,
        fwmark: options.fwmark.map(|mark| mark.0),
        proto,
        sport: ports(options.sport),
        dport: ports(options.dport),
        uid: options.uid.map(|uids| uids.0),
        table: options.table.map_or(254, |table| table.0),
        suppress_prefixlength: options.suppress_prefixlength.map(|length| length.0),
        priority: options.priority.map(|priority| priority.0),
        kind,
        protocol: OWNER_PROTOCOL,
    };
    lab.ask(AddRule { netns: at, rule }, place)
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Adds a policy rule to a namespace.
    ///
    /// Ports and users say which way a service or a user's programs go; a mark that `filter` sets does so for what it matches.
    ///
    /// Like `ip rule add from NET to NET iif DEV fwmark N ipproto tcp dport 25 uidrange 1000-1999 table T suppress_prefixlength N
    /// priority P`.
    ///
    /// Fails with `invalid` where families are mixed, and with `exists` where there is such a rule.
    ///
    /// ```rhai
    /// let r = netns("r1");
    /// r.rule(#{ from: "10.0.0.0/24", table: 100, priority: 500 });
    /// r.rule(#{ proto: "tcp", dport: 25, table: 102 });
    /// assert(r.rules().some(|rule| rule.dport == "25" && rule.proto == "tcp"));
    /// assert(r.rules().some(|rule| rule.table == 100 && rule.priority == 500));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn rule(ctx: NativeCallContext, netns: NetnsHandle, options: Map) -> RhaiResultOf<NetnsHandle> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| add(lab, &netns, options, place))?;
        Ok(netns)
    }

    /// Returns the policy rules of a namespace, as maps with `priority`, `from`, `to`, `iif`, `oif`, `fwmark`, `proto`,
    /// `sport`, `dport`, `uid`, `kind`, `table`, `suppress_prefixlength` and `version`. What a rule doesn't ask for is `()`; `kind` is `"lookup"`, `"blackhole"`,
    /// `"unreachable"` or `"prohibit"`.
    ///
    /// Like `ip rule show`, for both families.
    ///
    /// Fails with `gone` where the namespace was removed.
    ///
    /// ```rhai
    /// assert(netns("r1").rules().some(|rule| rule.table == "main"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn rules(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let rules = handles::look(lab, &at, &format!("list the rules of `{}`", at.name), net::ip::rule::list)?;
            let subnet = |net: Option<ipnetwork::IpNetwork>| net.map_or(Dynamic::UNIT, |net| Dynamic::from(Net(net)));
            let text = |text: &Option<String>| text.clone().map_or(Dynamic::UNIT, Dynamic::from);
            let as_map = |rule: &Rule| {
                Dynamic::from_map(Map::from_iter([
                    ("priority".into(), i64::from(rule.priority.unwrap_or(0)).into()),
                    ("from".into(), subnet(rule.from)),
                    ("to".into(), subnet(rule.to)),
                    ("iif".into(), text(&rule.iif)),
                    ("oif".into(), text(&rule.oif)),
                    ("fwmark".into(), rule.fwmark.map_or(Dynamic::UNIT, |mark| i64::from(mark).into())),
                    ("proto".into(), rule.proto.map_or(Dynamic::UNIT, |proto| net::proto_word(proto).into())),
                    ("sport".into(), rule.sport.map_or(Dynamic::UNIT, |range| net::range_text(range).into())),
                    ("dport".into(), rule.dport.map_or(Dynamic::UNIT, |range| net::range_text(range).into())),
                    ("uid".into(), rule.uid.map_or(Dynamic::UNIT, |range| net::range_text(range).into())),
                    ("kind".into(), rule.kind.word().into()),
                    ("table".into(), Dynamic::from(Table(rule.table))),
                    (
                        "suppress_prefixlength".into(),
                        rule.suppress_prefixlength.map_or(Dynamic::UNIT, |n| i64::from(n).into()),
                    ),
                    ("version".into(), if rule.v6 { 6_i64 } else { 4 }.into()),
                ]))
            };
            Ok(rules.iter().map(as_map).collect())
        })
    }
}
