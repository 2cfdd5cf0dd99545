//! The primitives: what a script can call. One file a group: its steps, its documented functions, its tests.
//!
//! This is the only place where Rhai meets `lab`. A function checks its values, asks the lab for a step, and returns a
//! handle; what looks at the network settles first. `GROUPS` is the one list of the groups: the engine, the catalogue, the
//! journal and the tests are all made from it.

mod addr;
mod attach;
mod beyond;
mod bond;
mod bridge;
mod calls;
mod check;
mod context;
mod dev;
mod dev_change;
mod difference;
mod dnat;
mod dummy;
mod endpoint;
mod errors;
mod fdb;
mod filter;
mod firewalls;
mod graph;
mod handles;
mod http;
mod inbound;
mod ipam;
mod labs;
mod lease;
mod links;
mod mappings;
mod masquerade;
mod neigh;
mod netns;
mod new_link;
mod options;
mod path;
mod ping;
mod port;
mod ports;
mod process;
mod published;
mod quantity;
mod ready;
mod records;
mod resolver;
mod route;
mod rule;
mod ruleset;
mod sees;
mod serve;
mod shape;
mod start;
mod supervised;
mod sysctl;
mod take_over;
mod tap;
mod target;
mod tcp;
mod throughput;
mod tunnel;
mod units;
mod value;
mod veth;
mod vlan;
mod vrf;
mod vxlan;
mod ways;
mod whole;
mod within;

use rhai::plugin::ModuleManifest;
use rhai::{FuncRegistration, Module, RhaiFunc};

use crate::lab::{ReadStep, Steps};

pub use addr::wrong_address;
pub use beyond::Beyond;
pub use calls::{At, Callee, Function, Insert, Source};
pub use context::{LabHandle, ScriptError, rhai_error};
pub use errors::Failed;
pub use handles::{Dev, NetnsHandle, netns_properties, no_netns_property};
pub use labs::{Args, as_json};
pub use options::{OptionDoc, OptionSet};
pub use ruleset::is_a_labs;
pub use start::Process;
pub use supervised::SUPERVISE;
pub use units::parse_time;
pub use value::{Ip, Net, ip_value, net_value, parse_cidr, parse_ip, without_host_bits};

/// The word by which the program calls itself to be a server of a lab.
pub const SERVE: &str = "__serve";

/// A group of primitives.
pub struct Group {
    /// Its name: the file's.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub about: &'static str,
    /// Its functions.
    pub functions: &'static ModuleManifest,
    /// The sorts of steps that its functions ask for.
    pub steps: &'static [(&'static str, ReadStep)],
    /// The options that its functions take.
    pub options: &'static [OptionSet],
}

impl Group {
    /// Returns a module with its functions, and all that is written about them.
    pub fn module(&self) -> Module {
        let mut module = Module::from_manifest(self.functions);
        module.register_lazy_functions();
        module
    }
}

/// Returns a module with the functions of all groups, and nothing of what is written about them: for a run, which begins sooner
/// without it.
pub fn functions() -> Module {
    let mut module = Module::new();
    for group in GROUPS {
        enter(&mut module, group.functions);
    }
    module
}

/// Enters functions into a module, without what is written about them.
pub fn enter(module: &mut Module, functions: &'static ModuleManifest) {
    functions.init_eager(module);
    functions.for_each_fn(false, &mut |function| {
        function.with_param_types(&mut |types| {
            let entry = FuncRegistration::new(function.name()).with_namespace(function.namespace());
            entry.set_into_module_raw(module, types, RhaiFunc::StaticPlugin { func: function.func() });
        });
    });
}

/// All groups, in the order in which the reference lists them.
pub const GROUPS: &[Group] = &[
    netns::GROUP,
    veth::GROUP,
    dev::GROUP,
    bridge::GROUP,
    port::GROUP,
    links::GROUP,
    vlan::GROUP,
    vxlan::GROUP,
    fdb::GROUP,
    tunnel::GROUP,
    bond::GROUP,
    vrf::GROUP,
    dummy::GROUP,
    tap::GROUP,
    addr::GROUP,
    route::GROUP,
    rule::GROUP,
    neigh::GROUP,
    shape::GROUP,
    sysctl::GROUP,
    endpoint::GROUP,
    masquerade::GROUP,
    dnat::GROUP,
    filter::GROUP,
    process::GROUP,
    start::GROUP,
    resolver::GROUP,
    ping::GROUP,
    path::GROUP,
    tcp::GROUP,
    http::GROUP,
    serve::GROUP,
    sees::GROUP,
    throughput::GROUP,
    check::GROUP,
    errors::GROUP,
    value::GROUP,
    graph::GROUP,
    labs::GROUP,
    within::GROUP,
    ipam::GROUP,
    records::GROUP,
];

/// Returns the sorts of steps of all groups: what journals are read with.
pub fn steps() -> Steps {
    Steps::new(GROUPS.iter().flat_map(|group| group.steps.iter().copied()))
}
