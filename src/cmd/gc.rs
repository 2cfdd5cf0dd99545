//! `topo gc`: removing what dead runs left.

use super::context::Context;
use super::output::Trouble;
use crate::lab;
use crate::prim;
use crate::terminal::{self, Style, talk};

/// Removes what dead runs left behind: labs whose run was killed, namespaces and devices that bear the mark of a lab that is
/// not known any more, and the addresses that such a lab held. Labs that are up stay.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print each step that is taken back
    #[arg(long)]
    trace: bool,
}

/// Runs `topo gc`.
pub(super) fn gc(args: &Args, context: &Context) -> Result<u8, Trouble> {
    super::context::arm_fault();
    let state = context.state()?;
    let (mut listener, _) = terminal::listener(Style { json: false, trace: args.trace });
    let collected = lab::gc(&state, &prim::steps(), &mut listener)?;
    for (what, names) in [("lab", &collected.labs), ("netns", &collected.netns), ("device", &collected.devs)] {
        for name in names {
            talk(&format!("removed {what} `{name}`\n"));
        }
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
    if collected.errors.is_empty() { Ok(0) } else { Err(collected.errors.into()) }
}
