//! Name servers of a namespace: what programs in it ask for names that the lab does not know.

use std::net::IpAddr;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};
use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, Model, Op, Outcome, Resolver, Step, StepSort};
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, ask, with_lab};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::{FromScript, argument};
use crate::state::{Error, NetnsRef, Result, name};
use crate::{net, step_sort};

pub(in crate::prim) const GROUP: Group = Group {
    name: "resolver",
    about: "How programs in a namespace find addresses by names.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(SetResolver)],
    options: &[ResolverOptions::SET],
};

options! {
    /// Options of `resolver`.
    pub struct ResolverOptions of "resolver" {
        /// The domains that are tried behind a short name.
        search: Domains,
    }
}

/// The most name servers that the C library asks (resolv.conf(5), MAXNS).
const SERVERS_MAX: usize = 3;

/// Domains.
#[derive(Debug, Clone)]
pub struct Domains(Vec<String>);

impl FromScript for Domains {
    const WHAT: &'static str = r#"a domain such as "lab.example", or a list of them"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = if value.is_string() { vec![value] } else { value.into_array().map_err(|_| String::new())? };
        let domain = |value: Dynamic| {
            let text = value.into_string().map_err(|_| String::new())?;
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !text.is_empty() && text.chars().all(good) { Ok(text) } else { Err(format!("{text:?} is none")) }
        };
        list.into_iter().map(domain).collect::<std::result::Result<_, _>>().map(Domains)
    }
}

/// Name servers.
struct NameServers(Vec<IpAddr>);

impl FromScript for NameServers {
    const WHAT: &'static str = r#"the IP address of a name server such as "10.0.0.53", or a list of up to three"#;

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let list = match value.clone().into_array() {
            Ok(list) => list,
            Err(_) => vec![value],
        };
        if list.len() > SERVERS_MAX {
            return Err(format!("{} are given", list.len()));
        }
        list.into_iter().map(IpAddr::from_script).collect::<std::result::Result<_, _>>().map(NameServers)
    }
}

/// Sets the name servers of a namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SetResolver {
    netns: NetnsRef,
    resolver: Resolver,
    /// What was set before, by an earlier step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Resolver>,
}

impl StepSort for SetResolver {
    const WORD: &'static str = "set-resolver";
}

impl Step for SetResolver {
    fn doing(&self) -> String {
        format!("set the name servers of netns `{}`", self.netns.name)
    }

    fn like(&self) -> Vec<String> {
        let lines: Vec<String> = self.resolver.text().lines().map(|line| format!("'{line}'")).collect();
        let file = format!("/etc/netns/{0}/resolv.conf", self.netns.name);
        vec![format!("mkdir -p /etc/netns/{0} && printf '%s\\n' {1} > {file}", self.netns.name, lines.join(" "))]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { lives_in: vec![&self.netns], ..Footprint::default() }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.netns)?;
        model.set_resolver(self.netns.no, Some(self.resolver.clone()));
        Ok(())
    }

    fn unplan(&self, model: &mut Model, _why: &str) {
        model.set_resolver(self.netns.no, self.before.clone());
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| kernel.write_resolver(&self.netns, Some(&self.resolver)))
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        kernel.write_resolver(&self.netns, self.before.as_ref())
    }

    // The name servers are in a file of the lab's directory.
    fn is_held(&self, _kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(true)
    }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Sets the name servers that programs in a namespace ask: one address, or a list of up to three. Returns the namespace.
    ///
    /// Commands that `exec`, `start` and `topo exec` run in the namespace see them as `/etc/resolv.conf`; what runs already sees a
    /// change too. The names of the lab's own nodes need no server: those commands find them, with the addresses that the script
    /// gave, in `/etc/hosts`. Files in `/etc/netns/NETNS` are honoured as `ip netns exec` does: before the names of the nodes, and
    /// after `resolver`. The host keeps its own files.
    ///
    /// Like `echo 'nameserver SERVER' > /etc/netns/NETNS/resolv.conf`.
    ///
    /// Fails with `invalid` for what is no address, for more than three, and for the host.
    ///
    /// ```rhai
    /// let h1 = netns("h1");
    /// let h2 = netns("h2");
    /// veth(h1["eth0"], h2["eth0"]);
    /// h1["eth0"].addr("10.0.0.1/24");
    /// h2["eth0"].addr("10.0.0.2/24");
    /// h1.resolver("10.0.0.2", #{ search: "lab.example" });
    /// assert(h1.exec("cat /etc/resolv.conf").stdout == "search lab.example\nnameserver 10.0.0.2\n");
    /// assert(h1.exec("grep h2 /etc/hosts").stdout == "10.0.0.2\th2\n");
    /// ```
    #[rhai_fn(name = "resolver", return_raw)]
    pub fn resolver_with(
        ctx: NativeCallContext,
        netns: NetnsHandle,
        servers: Dynamic,
        options: Map,
    ) -> RhaiResultOf<NetnsHandle> {
        let step = with_lab(&ctx, |lab| {
            let options = ResolverOptions::parse(options)?;
            let at = netns.living(lab)?;
            let doing = format!("set the name servers of netns `{}`", name::shown(&at.name));
            if at.no == 0 {
                return Err(Error::invalid(doing).because("the host's own are not the lab's to change"));
            }
            let NameServers(servers) = argument(&doing, servers)?;
            let search = options.search.map(|Domains(domains)| domains).unwrap_or_default();
            let before = lab.model().resolver(at.no).cloned();
            Ok(SetResolver { netns: at, resolver: Resolver { servers, search }, before })
        })?;
        ask(&ctx, step)?;
        Ok(netns)
    }

    /// Sets one name server, or up to three.
    #[rhai_fn(name = "resolver", return_raw)]
    pub fn resolver_plain(ctx: NativeCallContext, netns: NetnsHandle, servers: Dynamic) -> RhaiResultOf<NetnsHandle> {
        resolver_with(ctx, netns, servers, Map::new())
    }

    /// Returns the name servers that the lab has set for a namespace.
    ///
    /// Like `grep ^nameserver /etc/netns/NETNS/resolv.conf`.
    ///
    /// Fails with `gone` if the namespace was removed.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(h.resolvers() == []);
    /// h.resolver(["10.0.0.53", "fd00::53"]);
    /// assert(h.resolvers().map(|server| `${server}`) == ["10.0.0.53", "fd00::53"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn resolvers(ctx: NativeCallContext, netns: NetnsHandle) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let at = netns.living(lab)?;
            let servers = lab.model().resolver(at.no).map(|resolver| resolver.servers.clone()).unwrap_or_default();
            Ok(servers.into_iter().map(|ip| Dynamic::from(crate::prim::Ip(ip))).collect())
        })
    }
}
