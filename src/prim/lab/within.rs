//! Labs within labs: parts of a script that have a name, a journal and an end of their own.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, EvalAltResult, FnPtr, Map};

use crate::lab::{self, Event, Lab, Listener, Origin};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{
    RhaiResultOf, ScriptError, call, error_of, lab_of, place_of, raise, rhai_error, with_lab,
};
use crate::prim::value::handles::NetnsHandle;
use crate::prim::value::options::options;
use crate::prim::value::units::FromScript;
use crate::state::{DevRef, Error, Identity, Kind, LabKind, NetnsAt, NetnsRef, Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "within",
    about: "Labs within labs: parts that have a name, a journal and an end of their own, as container networks are.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[WithinOptions::SET],
};

options! {
    /// Options of `lab_within`.
    pub struct WithinOptions of "lab_within" {
        /// What it is for: `lab`, `network` or `endpoint`; `lab` unless given.
        kind: LabKind,
        /// The lab that it is a part of and goes down with; the lab around it unless given.
        part_of: String,
        /// That it is a part of no lab, and stays by itself.
        standalone: bool,
        /// Somebody else's netns that it is for: `topo gc` takes the lab down once that has ended.
        tied_to: NetnsHandle,
    }
}

impl FromScript for LabKind {
    const WHAT: &'static str = "`lab`, `network` or `endpoint`";

    fn from_script(value: Dynamic) -> std::result::Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        [LabKind::Lab, LabKind::Network, LabKind::Endpoint]
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(String::new)
    }
}

/// Finds out how a namespace is known for good: a name may stand for another one later, its identity can't.
fn tie(lab: &mut Lab, netns: &NetnsHandle) -> Result<Option<NetnsRef>> {
    let at = netns.living(lab)?;
    if at.at == NetnsAt::Host {
        return Ok(None);
    }
    let (kernel, _) = lab.settled()?;
    let failed = |source: net::Error| Error::kernel(format!("look at netns `{}`", at.name), &source);
    let netns = kernel.netns(&at).map_err(failed)?;
    let at = match at.at {
        NetnsAt::Named => NetnsRef { at: NetnsAt::NamedAs(Identity::of(&netns).map_err(failed)?), ..at },
        _ => at,
    };
    Ok(Some(at))
}

/// Returns a listener that keeps what it hears, and what it kept.
fn keeping() -> (Listener, Rc<RefCell<Vec<Event>>>) {
    let events: Rc<RefCell<Vec<Event>>> = Rc::default();
    let kept = events.clone();
    (Listener::new(move |event| kept.borrow_mut().push(event.clone())), events)
}

/// Forgets the devices of others that are no more, or have another name, so that their names are free again.
fn forget_gone(lab: &mut Lab, why: &str) -> Result<()> {
    let (kernel, model) = lab.foreign();
    let foreign: Vec<DevRef> =
        model.all_devs().filter(|entry| !entry.dev.made).map(|entry| entry.dev.clone()).collect();
    for dev in foreign {
        let link = kernel.link(&dev).map_err(|source| Error::kernel(format!("look at {}", dev.shown()), &source))?;
        if link.is_none_or(|link| !link.goes_by(&name::kernel_name(&dev.name))) {
            model.remove_dev(dev.no, why);
        }
    }
    model.look_again();
    Ok(())
}

/// Adds what went wrong at the end of a lab to the error that ended it.
pub(in crate::prim) fn with_errors(
    ctx: &NativeCallContext,
    failed: Box<EvalAltResult>,
    errors: Vec<Error>,
) -> Box<EvalAltResult> {
    if errors.is_empty() {
        return failed;
    }
    if let Some((error, position)) = error_of(&failed) {
        return rhai_error(error.also(errors), position);
    }
    // Another sort of error has no room for them.
    for error in errors {
        let said = lab_of(ctx).and_then(|lab| {
            lab.with(|lab| {
                lab.say(&Event::Warning(error.to_string()));
                Ok(())
            })
        });
        drop(said);
    }
    failed
}

/// Puts back what others took from a lab; what is in it may have to be looked up again.
fn repair(lab: &mut Lab, name: &str) -> Result<crate::survey::Repaired> {
    lab.note_act();
    lab.settle()?;
    let (mut keep, events) = keeping();
    let repaired = crate::survey::repair(lab.state(), name, &crate::prim::steps(), &mut keep);
    events.borrow().iter().for_each(|event| lab.say(event));
    forget_gone(lab, &format!("lab `{name}` was repaired"))?;
    repaired
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Builds a lab of its own in `body`, which stays up when the body ends and is taken down when it fails. Inside, what the
    /// script has made so far is somebody else's; outside, what the body made is. Returns what the body returns.
    ///
    /// It goes down with the lab around it, before it; `part_of: ()` makes it a lab that stays by itself.
    ///
    /// Like a `topo run --name NAME` of its own.
    ///
    /// Fails with `exists` where there is a lab of this name, and with whatever the body fails with.
    ///
    /// ```rhai
    /// let h1 = netns("h1");
    /// let br = lab_within("switch", #{}, || {
    ///     let br = bridge("br0");
    ///     veth(h1["eth0"], br);
    ///     br
    /// });
    /// assert(h1.devs().map(|d| d.name) == ["lo", "eth0"]);
    /// lab_down("switch");
    /// assert(h1.devs().map(|d| d.name) == ["lo"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_within(ctx: NativeCallContext, name: &str, options: Map, body: FnPtr) -> RhaiResultOf<Dynamic> {
        let handle = raise(&ctx, lab_of(&ctx))?;
        let entered = (|| {
            name::check("lab", name)?;
            let options = WithinOptions::parse(options)?;
            let tied_to = match &options.tied_to {
                Some(netns) => handle.with(|lab| tie(lab, netns))?,
                None => None,
            };
            handle.enter(|outer| Origin {
                name: name.to_string(),
                named: true,
                any_name: false,
                script: outer.script().to_string(),
                kind: options.kind.unwrap_or_default(),
                parent: match (options.standalone, options.part_of) {
                    (Some(true), _) => None,
                    (_, part_of) => Some(part_of.unwrap_or_else(|| outer.name().to_string())),
                },
                tied_to,
            })?;
            // Its name is its own before anything is looked at in its body.
            handle.with(Lab::take_name).inspect_err(|_| drop(handle.leave(false)))
        })();
        raise(&ctx, entered)?;
        let done = call(&ctx, &body);
        let done = done.and_then(|value| {
            // What is asked for last is refused last: still inside, where it takes all down.
            with_lab(&ctx, Lab::settle).map(|()| value)
        });
        let errors = handle.leave(done.is_ok());
        match done {
            Ok(value) => match Error::joined(errors) {
                Some(error) => raise(&ctx, Err(error.at(&place_of(&ctx)))),
                None => Ok(value),
            },
            Err(failed) => Err(with_errors(&ctx, failed, errors)),
        }
    }

    /// Takes a lab down, with the labs that are parts of it.
    #[rhai_fn(return_raw)]
    pub fn lab_down(ctx: NativeCallContext, name: &str) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            lab.note_act();
            lab.settle()?;
            let state = lab.state().clone();
            let (mut keep, events) = keeping();
            let errors = lab::down(&state, name, &crate::prim::steps(), &mut keep);
            events.borrow().iter().for_each(|event| lab.say(event));
            // What is not there has taken nothing along.
            if !errors.iter().all(|error| error.kind() == Kind::Missing) || errors.is_empty() {
                forget_gone(lab, &format!("lab `{name}` was taken down"))?;
            }
            Error::joined(errors).map_or(Ok(()), Err)
        })
    }

    /// Takes a lab down, or all of a list, with the labs that are parts of them. The cables of all are deleted in one go: the kernel waits
    /// as long for one, some 20 ms, as for hundreds. Those of a list that are not there are passed over.
    ///
    /// Like `topo down NAME…`, and `ip link del group N`.
    ///
    /// Fails with `missing` where there is no such lab, with `busy` where a process is at work on it, as this one is on the
    /// lab of the script, and with whatever could not be taken back; the others of a list are gone all the same.
    ///
    /// ```rhai
    /// for n in 1..=3 { lab_within(`aside${n}`, #{}, || { netns(`h${n}`); }); }
    /// lab_down("aside1");
    /// lab_down(["aside2", "aside3"]);
    /// assert(!lab_is_up("aside1") && !lab_is_up("aside3"));
    /// ```
    #[rhai_fn(name = "lab_down", return_raw)]
    pub fn lab_down_all(ctx: NativeCallContext, names: Array) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            let names: Vec<String> = names
                .into_iter()
                .map(|name| crate::prim::value::units::argument("take down labs", name))
                .collect::<Result<_>>()?;
            lab.note_act();
            lab.settle()?;
            let state = lab.state().clone();
            let (mut keep, events) = keeping();
            let (any, errors) = lab::down_all(&state, &names, &crate::prim::steps(), &mut keep);
            events.borrow().iter().for_each(|event| lab.say(event));
            if any {
                forget_gone(lab, "its lab was taken down")?;
            }
            Error::joined(errors).map_or(Ok(()), Err)
        })
    }

    /// Returns what the kernel no longer has of a lab, in words: what somebody flushed or changed.
    ///
    /// Like `diff` of what the lab made and `nft list ruleset`.
    ///
    /// Fails with `missing` where there is no such lab.
    ///
    /// ```rhai
    /// lab_within("switch", #{}, || { bridge("br0"); });
    /// assert(lab_drift("switch").is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_drift(ctx: NativeCallContext, name: &str) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            lab.settle()?;
            let lost = crate::survey::drift(lab.state(), name, &crate::prim::steps())?;
            Ok(lost.into_iter().map(Dynamic::from).collect())
        })
    }

    /// Tells how labs are, in a word each: `up`, `damaged` or `down`. It looks at the host once for all: at the devices there, their
    /// addresses, the tables of nf_tables, and the names of namespaces. `lab_drift` looks at everything.
    ///
    /// Like the state of a network in `topo network ls`.
    ///
    /// Fails with `state` where a record is damaged.
    ///
    /// ```rhai
    /// lab_within("switch", #{}, || { bridge("br0"); });
    /// assert(lab_states(["switch", "office"]) == ["up", "down"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_states(ctx: NativeCallContext, names: Array) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            lab.settle()?;
            let (glance, steps) = (crate::survey::Glance::take()?, crate::prim::steps());
            let state = |name: Dynamic| glance.state_of(lab.state(), &name.to_string(), &steps);
            names.into_iter().map(|name| state(name).map(Dynamic::from)).collect()
        })
    }

    /// Tells whether the netns has ended that a lab is for: the container of a network's endpoint.
    ///
    /// Like `test ! -e /proc/PID/ns/net`.
    ///
    /// Fails with `missing` where there is no such lab.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// lab_within("end", #{ tied_to: h }, || { veth("up0", h["eth0"]); });
    /// assert(!lab_has_ended("end"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_has_ended(ctx: NativeCallContext, name: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            lab.settle()?;
            crate::survey::has_ended(&lab.state().find(name)?)
        })
    }

    /// Makes again what the kernel no longer has of a lab, as far as that can be done. Returns `#{ made, failed }`: what was
    /// made, in words, and the errors of what failed.
    ///
    /// Like `lab_repair`, which stops the script where something failed.
    ///
    /// Fails with `missing` where there is no such lab, and with `gone` where it is not up.
    ///
    /// ```rhai
    /// lab_within("switch", #{}, || { bridge("br0"); });
    /// assert(lab_mend("switch") == #{ made: [], failed: [] });
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_mend(ctx: NativeCallContext, name: &str) -> RhaiResultOf<Map> {
        with_lab(&ctx, |lab| {
            let repaired = repair(lab, name)?;
            let made: Array = repaired.made.into_iter().map(Dynamic::from).collect();
            let failed: Array =
                repaired.errors.into_iter().map(|error| Dynamic::from(ScriptError(error.into()))).collect();
            Ok(Map::from_iter([("made".into(), made.into()), ("failed".into(), failed.into())]))
        })
    }

    /// Makes again what the kernel no longer has of a lab; returns what that was, in words.
    ///
    /// Like the commands of `topo show --steps`, as far as they are needed.
    ///
    /// Fails with `missing` where there is no such lab, and with the kernel's reason.
    ///
    /// ```rhai
    /// lab_within("switch", #{}, || { bridge("br0"); });
    /// assert(lab_repair("switch").is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_repair(ctx: NativeCallContext, name: &str) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| {
            let crate::survey::Repaired { made, errors } = repair(lab, name)?;
            Error::joined(errors).map_or_else(|| Ok(made.into_iter().map(Dynamic::from).collect()), Err)
        })
    }

    /// Tells whether there is a lab of this name, up and of this boot of the machine.
    ///
    /// Like `topo ls`.
    ///
    /// Fails with `invalid` for a name that breaks the rule for names, and with `state` where its record is damaged.
    ///
    /// ```rhai
    /// assert(!lab_is_up("office"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_is_up(ctx: NativeCallContext, name: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| match lab.state().find(name) {
            Ok(dir) => dir.record().and_then(|record| lab.state().is_up(&record)),
            Err(error) if error.kind() == Kind::Missing => Ok(false),
            Err(error) => Err(error),
        })
    }
}
