//! The primitives: what a script can call. One file a group: its steps, its documented functions, its tests.
//!
//! This is the only place where Rhai meets `lab`. A function checks its values, asks the lab for a step, and returns a
//! handle; what looks at the network settles first. `GROUPS` is the one list of the groups: the engine, the catalogue, the
//! journal and the tests are all made from it.

mod call;
mod ip;
mod iproute2;
mod lab;
mod link;
mod nat;
mod probe;
mod process;
mod value;

use rhai::plugin::ModuleManifest;
use rhai::{FuncRegistration, Module, RhaiFunc};

use crate::lab::{ReadStep, Steps};

pub use call::beyond::Beyond;
pub use call::calls::{At, Callee, Function, Insert, Source};
pub use call::context::{LabHandle, ScriptError, rhai_error};
pub use ip::addr::wrong_address;
pub use lab::errors::Failed;
pub use lab::labs::{Args, as_json};
pub use nat::ruleset::is_a_labs;
pub use process::start::Process;
pub use process::supervised::SUPERVISE;
pub use value::handles::{Dev, NetnsHandle, netns_properties, no_netns_property};
pub use value::options::{OptionDoc, OptionSet};
pub use value::units::parse_time;
pub use value::value::{Ip, Net, ip_value, net_value, parse_cidr, parse_ip, without_host_bits};

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
    lab::netns::GROUP,
    link::veth::GROUP,
    link::dev::GROUP,
    link::bridge::GROUP,
    link::port::GROUP,
    link::links::GROUP,
    link::vlan::GROUP,
    link::vxlan::GROUP,
    link::fdb::GROUP,
    link::tunnel::GROUP,
    link::bond::GROUP,
    link::vrf::GROUP,
    link::dummy::GROUP,
    link::tap::GROUP,
    ip::addr::GROUP,
    ip::route::GROUP,
    ip::rule::GROUP,
    ip::neigh::GROUP,
    link::shape::GROUP,
    ip::sysctl::GROUP,
    ip::endpoint::GROUP,
    nat::masquerade::GROUP,
    nat::dnat::GROUP,
    nat::filter::GROUP,
    process::process::GROUP,
    process::start::GROUP,
    process::resolver::GROUP,
    probe::ping::GROUP,
    probe::path::GROUP,
    probe::tcp::GROUP,
    probe::http::GROUP,
    process::serve::GROUP,
    probe::sees::GROUP,
    probe::throughput::GROUP,
    probe::check::GROUP,
    lab::errors::GROUP,
    value::value::GROUP,
    value::graph::GROUP,
    lab::labs::GROUP,
    lab::within::GROUP,
    lab::ipam::GROUP,
    lab::records::GROUP,
];

/// Returns the sorts of steps of all groups: what journals are read with.
pub fn steps() -> Steps {
    Steps::new(GROUPS.iter().flat_map(|group| group.steps.iter().copied()))
}
