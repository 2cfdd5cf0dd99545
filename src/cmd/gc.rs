//! `topo gc`: removing what dead runs left.

use serde_json::json;

use super::context::Context;
use super::output::Trouble;
use crate::lab::Collected;
use crate::prim;
use crate::state::name;
use crate::terminal::{self, Style, data, exit, talk};

/// Removes what dead runs left behind, and says what it removed and ended. These are labs whose run was killed; namespaces, devices,
/// tables, rules and processes of a lab that is not known any more, by its mark; and the addresses that such a lab held. Empty control
/// groups go, whatever state directory they are of, if the run that made them has ended. Labs that are up stay.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print each step that is taken back
    #[arg(long)]
    trace: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `topo gc`.
pub(super) fn gc(args: &Args, context: &Context) -> Result<u8, Trouble> {
    super::context::arm_fault();
    let state = context.state()?;
    let (mut listener, _) = terminal::listener(Style { json: args.json, trace: args.trace });
    let collected = crate::survey::gc(&state, &prim::steps(), &mut listener)?;
    if args.json {
        print_json(&collected)
    } else {
        say(&collected)
    }
    if collected.errors.is_empty() { Ok(exit::DONE) } else { Err(collected.errors.into()) }
}

fn say(collected: &Collected) {
    let Collected { labs, netns, devs, tables, rules, groups, .. } = collected;
    let all = [
        ("lab", labs),
        ("netns", netns),
        ("device", devs),
        ("table", tables),
        ("rule in chain", rules),
        ("control group", groups),
    ];
    for (what, names) in all {
        for name in names {
            talk(&format!("removed {what} `{name}`\n"));
        }
    }
    for process in &collected.processes {
        talk(&format!("ended process {} `{}`\n", process.pid, name::shown(&process.command)));
    }
    for held in &collected.leases {
        talk(&format!("removed lease `{}` of `{}`\n", held.lease.ip, held.lease.owner));
    }
    for pool in &collected.pools {
        talk(&format!("removed pool `{pool}`\n"));
    }
    if collected.is_empty() {
        talk("nothing was left behind\n");
    }
}

fn print_json(collected: &Collected) {
    let leases: Vec<_> =
        collected.leases.iter().map(|held| json!({ "ip": held.lease.ip, "owner": held.lease.owner })).collect();
    let pools: Vec<String> = collected.pools.iter().map(ToString::to_string).collect();
    let value = json!({
        "labs": collected.labs,
        "netns": collected.netns,
        "devices": collected.devs,
        "tables": collected.tables,
        "rules": collected.rules,
        "groups": collected.groups,
        "processes": collected.processes,
        "leases": leases,
        "pools": pools,
    });
    data(&format!("{value}\n"));
}
