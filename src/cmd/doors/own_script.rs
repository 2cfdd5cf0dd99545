//! A script of the user's behind a door: it connects a container as it likes.

use std::path::Path;

use serde_json::{Value, json};

use super::act::Refusal;
use crate::cmd::context::Context;
use crate::lab::{Lab, Origin};
use crate::net::{self, Netns};
use crate::prim::{self, LabHandle};
use crate::script::{Failure, Script, Session};
use crate::state::{Error, Identity, Kind, LabKind, NetnsAt, NetnsRef, name};
use crate::terminal::{self, Style};

/// Returns the name of the lab that a script makes for a container, by what the door knows it by. `doors/cni` of the library spells it too.
pub(super) fn lab_of(key: &str) -> String {
    format!("container-{}", name::hash_of(key))
}

/// Runs a script for a container, which it sees as `container`: the values given, with `netns` as a netns instead of its path. What it makes
/// is a lab of this name, which is tied to the container's netns. If the script or a check of it fails, nothing is left of it.
pub(super) fn run(context: &Context, lab: &str, file: &Path, netns: &Path, container: &Value) -> Result<(), Refusal> {
    let script = Script::read(file)?;
    let failed = |source: net::Error| Error::kernel(format!("look at netns `{}`", netns.display()), &source);
    let seen = Netns::open(netns).and_then(|netns| Identity::of(&netns)).map_err(failed)?;
    let tie = NetnsRef { no: 1, name: lab.into(), at: NetnsAt::Path(netns.to_path_buf(), seen), made: false };
    let (listener, _) = terminal::listener(Style { json: true, trace: false });
    let origin = Origin {
        name: lab.into(),
        named: true,
        any_name: false,
        script: script.name.clone(),
        kind: LabKind::Lab,
        parent: None,
        tied_to: Some(tie),
    };
    let handle = LabHandle::new(Lab::begin(origin, context.state()?, listener)?, &script.name);
    let args = rhai::serde::to_dynamic(json!({ "container": container, "netns": netns })).ok();
    let args = args.and_then(|args| args.try_cast::<rhai::Map>()).unwrap_or_default();
    let mut session = Session::new(&handle, &context.dirs, args);
    let begin = "let container = args.container; container.netns = netns_of(args.netns);";
    let ran = session
        .run(&Script::inline("-e", begin))
        .and_then(|()| session.run(&script))
        .map_err(|failure| *failure)
        .and_then(|()| handle.with(|lab| lab.settle()).map_err(|error| Failure::from(&error)));
    let Some(mut lab) = handle.take() else { return Err(Error::new(Kind::State, "run the script").into()) };
    let unmet = lab.checks().iter().find(|check| !check.ok).map(|check| check.sentence.clone());
    let refused = match (ran, unmet) {
        (Err(failure), _) => Some(Refusal::from(failure)),
        (Ok(()), Some(sentence)) => Some(Error::new(Kind::State, "a check has failed").because(sentence).into()),
        (Ok(()), None) => lab.leave_up().err().map(Refusal::from),
    };
    let Some(mut refusal) = refused else { return Ok(()) };
    lab.take_down(&prim::steps());
    refusal.message = format!("run `{}`: {}", file.display(), refusal.message);
    Err(refusal)
}
