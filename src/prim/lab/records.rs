//! Records: what scripts keep beyond a lab's life, as maps under names, and the locks that keep processes apart.

use rhai::plugin::*;
use rhai::{Array, Dynamic, FnPtr, Map};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labs::as_json;
use crate::lab::{Event, Footprint, Kernel, Lab, Op, Outcome, Step, StepSort};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, call, lab_of, place_of, raise, with_lab};
use crate::state::{Error, Key, Kind, RECORDS, Result, as_refusal, name};
use crate::step_sort;

pub(in crate::prim) const GROUP: Group = Group {
    name: "record",
    about: "Records that outlive labs, and locks between processes.",
    functions: exported_manifest!(functions),
    steps: &[step_sort!(PutRecord)],
    options: &[],
};

/// Writes a record.
#[derive(Debug, Serialize, Deserialize)]
struct PutRecord {
    path: Vec<String>,
    value: Value,
    before: Option<Value>,
}

impl PutRecord {
    fn key(&self) -> Result<Key> {
        self.path.iter().try_fold(Key::kind(RECORDS), |key, name| key.below(name))
    }
}

impl StepSort for PutRecord {
    const WORD: &'static str = "record";
}

impl Step for PutRecord {
    fn doing(&self) -> String {
        format!("write record `{}`", self.path.join("/"))
    }

    fn like(&self) -> Vec<String> {
        Vec::new()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint { leads_to_lab: true, ..Footprint::default() }
    }

    fn prepare(&mut self, kernel: &mut Kernel) -> net::Result<()> {
        let read = self.key().and_then(|key| kernel.store()?.get(&key));
        self.before = read.map_err(as_refusal)?;
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let write = || {
                let (store, key) = (kernel.store()?, self.key()?);
                store.put(&store.lock(&key)?, &key, &self.value)
            };
            write().map_err(as_refusal)
        })
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let take_back = || {
            let (store, key) = (kernel.store()?, self.key()?);
            let guard = store.lock(&key)?;
            match (store.get(&key)?, &self.before) {
                // Another has written it since.
                (now, _) if now.as_ref() != Some(&self.value) => Ok(()),
                (_, Some(before)) => store.put(&guard, &key, before),
                (_, None) => store.remove(&guard, &key).map(|_| ()),
            }
        };
        take_back().map_err(as_refusal)
    }

    // A record is in the store, where scripts change and remove it.
    fn is_held(&self, _kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        Ok(true)
    }
}

/// The kind under which the store keeps locks.
const LOCKS: &str = "locks";

/// Reads a path such as `endpoints/web` as names.
fn names_of(path: &str) -> Vec<String> {
    path.split('/').map(String::from).collect()
}

fn key_of(kind: &'static str, path: &str) -> Result<Key> {
    path.split('/').try_fold(Key::kind(kind), |key, name| key.below(name))
}

/// Reads a record, or nothing where there is none.
fn read(lab: &mut Lab, folder: &str, name: &str) -> Result<Option<Value>> {
    let key = key_of(RECORDS, folder)?.below(name)?;
    lab.settled()?;
    lab.store()?.get(&key)
}

/// Returns a record for the script.
fn for_script(value: &Value) -> Result<Dynamic> {
    rhai::serde::to_dynamic(value).map_err(|error| Error::new(Kind::State, "read a record").because(error))
}

fn names_in(lab: &mut Lab, folder: &str) -> Result<Vec<String>> {
    let above = key_of(RECORDS, folder)?;
    lab.settled()?;
    let keys = lab.store()?.list(&above)?;
    let direct = keys.into_iter().filter(|key| key.names().len() == above.names().len() + 1);
    Ok(direct.map(|key| key.last().to_string()).collect())
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// Writes a record: a map under a name in a folder, such as `networks` or `endpoints/web`. The lab's end takes it back.
    ///
    /// Like a file under `/var/lib`, written whole or not at all.
    ///
    /// Fails with `invalid` for a name that breaks the rule for names, and with `state` where it can't be written.
    ///
    /// ```rhai
    /// record_put("sites", "north", #{ racks: 3 });
    /// assert(record_get("sites", "north").racks == 3 && records("sites") == ["north"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn record_put(ctx: NativeCallContext, folder: &str, name: &str, value: Map) -> RhaiResultOf<()> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| {
            let mut path = names_of(folder);
            path.push(name.to_string());
            let step = PutRecord { path, value: as_json(&Dynamic::from_map(value)), before: None };
            step.key()?;
            lab.ask(step, place)
        })
    }

    /// Returns a record, or `()` where there is none.
    ///
    /// Like `cat` of a file under `/var/lib`.
    ///
    /// Fails with `state` where the record is damaged.
    ///
    /// ```rhai
    /// assert(record_get("sites", "north") == ());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn record_get(ctx: NativeCallContext, folder: &str, name: &str) -> RhaiResultOf<Dynamic> {
        with_lab(&ctx, |lab| read(lab, folder, name)?.as_ref().map_or(Ok(Dynamic::UNIT), for_script))
    }

    /// Returns a record that must be there; its folder is what it is called in the error: `networks` holds a network.
    ///
    /// Like `cat` of a file under `/var/lib`.
    ///
    /// Fails with `missing` where there is none, naming the nearest, and with `state` where it is damaged.
    ///
    /// ```rhai
    /// try { record_of("sites", "nroth"); } catch (e) { assert(e.kind == "missing"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn record_of(ctx: NativeCallContext, folder: &str, name: &str) -> RhaiResultOf<Dynamic> {
        with_lab(&ctx, |lab| {
            let what = folder.split('/').next().unwrap_or_default().trim_end_matches('s');
            name::check(what, name)?;
            if let Some(value) = read(lab, folder, name)? {
                return for_script(&value);
            }
            let error = Error::new(Kind::Missing, format!("find {what} `{name}`"))
                .because(format!("there is no {what} of this name"));
            let known = names_in(lab, folder)?;
            Err(match name::nearest(name, known.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None if known.is_empty() => error.hint(format!("there is no {what} at all")),
                None => error.hint(format!("there are: {}", known.join(", "))),
            })
        })
    }

    /// Removes a record for good; tells whether there was one.
    ///
    /// Like `rm` of a file under `/var/lib`.
    ///
    /// Fails with `state` where it can't be removed.
    ///
    /// ```rhai
    /// assert(!record_remove("sites", "north"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn record_remove(ctx: NativeCallContext, folder: &str, name: &str) -> RhaiResultOf<bool> {
        with_lab(&ctx, |lab| {
            lab.note_act();
            let key = key_of(RECORDS, folder)?.below(name)?;
            lab.settled()?;
            let store = lab.store()?;
            // Mostly a lab took it along: that is seen without the lock.
            Ok(store.get(&key)?.is_some() && store.remove(&store.lock(&key)?, &key)?)
        })
    }

    /// Returns the names of the records in a folder, sorted.
    ///
    /// Like `ls` of a folder under `/var/lib`.
    ///
    /// Fails with `invalid` for a folder whose name breaks the rule for names.
    ///
    /// ```rhai
    /// assert(records("sites").is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn records(ctx: NativeCallContext, folder: &str) -> RhaiResultOf<Array> {
        with_lab(&ctx, |lab| Ok(names_in(lab, folder)?.into_iter().map(Dynamic::from).collect()))
    }

    /// Does `body` with a lock that one process has at a time, and returns what the body returns.
    ///
    /// Like `flock FILE COMMAND`.
    ///
    /// Fails with `busy` where one process does not let go of it for half a minute, and with what the body fails with.
    ///
    /// ```rhai
    /// assert(with_lock("counter", || 1 + 1) == 2);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn with_lock(ctx: NativeCallContext, lock: &str, body: FnPtr) -> RhaiResultOf<Dynamic> {
        let guard = with_lab(&ctx, |lab| {
            lab.store()?.lock_unless(&key_of(LOCKS, lock)?, &|| net::process::signal::caught().is_some())
        })?;
        let done = call(&ctx, &body);
        drop(guard);
        done
    }

    /// Gives the script a result: with `--json`, what the run prints instead of an account of itself.
    ///
    /// Like the output of `ip -j`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// result(#{ answer: 42 });
    /// ```
    #[rhai_fn(return_raw)]
    pub fn result(ctx: NativeCallContext, value: Dynamic) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            lab.say(&Event::Result(as_json(&value)));
            Ok(())
        })
    }

    /// Returns a value as JSON that a person can read.
    ///
    /// Like `jq .`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(json([1, 2]) == "[\n  1,\n  2\n]");
    /// ```
    pub fn json(value: Dynamic) -> String {
        format!("{:#}", as_json(&value))
    }

    /// Hashes a text to twelve hexadecimal digits, the same on every machine: for names that are made up.
    ///
    /// Like `sha256sum | cut -c -12`, with another hash.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(hash_of("a").len == 12 && hash_of("a") != hash_of("b"));
    /// ```
    pub fn hash_of(text: &str) -> String {
        name::hash_of(text)
    }

    /// Checks a name by the one rule for names; `what` is the word for what it names.
    ///
    /// Like what every command of topo does with its names.
    ///
    /// Fails with `invalid`, saying the rule.
    ///
    /// ```rhai
    /// check_name("site", "north");
    /// try { check_name("site", "../x"); } catch (e) { assert(e.kind == "invalid"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_name(ctx: NativeCallContext, what: &str, name: &str) -> RhaiResultOf<()> {
        raise(&ctx, name::check(what, name))
    }

    /// Checks that all keys of a map are options that a function knows: for functions of one's own that take options.
    ///
    /// Like what every primitive does with its options.
    ///
    /// Fails with `invalid` for a key that is none of them, naming the nearest one.
    ///
    /// ```rhai
    /// fn office(options) {
    ///     check_options("office", options, ["hosts", "subnet"]);
    ///     options.hosts ?? 3
    /// }
    /// assert(office(#{ hosts: 5 }) == 5);
    /// try { office(#{ hoste: 5 }); } catch (e) { assert(e.hint == "did you mean `hosts`?"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_options(ctx: NativeCallContext, function: &str, options: Map, known: Array) -> RhaiResultOf<()> {
        let known: Vec<String> = known.into_iter().map(|word| word.to_string()).collect();
        let unknown = options.keys().find(|key| !known.iter().any(|word| word == key.as_str()));
        let Some(key) = unknown else { return Ok(()) };
        let error = Error::invalid(format!("unknown option `{}` of `{function}`", name::shown(key)));
        let listed = || known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        raise(
            &ctx,
            Err(match name::nearest(key, known.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("it has {}", listed())),
            }),
        )
    }

    /// Returns the time, in seconds since 1970.
    ///
    /// Like `date +%s`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(now() > 1700000000);
    /// ```
    pub fn now() -> i64 {
        i64::try_from(crate::state::now()).unwrap_or(i64::MAX)
    }

    /// Refuses to go on inside a sandbox: for scripts that work on the host's own containers.
    ///
    /// Like `test "$(id -u)" = 0`.
    ///
    /// Fails with `unsupported` in a sandbox.
    ///
    /// ```rhai
    /// try { host_only("join the containers of this host"); } catch (e) { assert(e.kind == "unsupported"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn host_only(ctx: NativeCallContext, doing: &str) -> RhaiResultOf<()> {
        let lab = raise(&ctx, lab_of(&ctx))?;
        let sandboxed = raise(&ctx, lab.with(|lab| Ok(lab.state().inside().is_some())))?;
        if !sandboxed {
            return Ok(());
        }
        let error = Error::new(Kind::Unsupported, doing)
            .because("it is about containers of the host, and this run has a private one")
            .hint("run it as root, without `--sandbox`; a script's own network goes in a sandbox too: `import \"network\"`");
        raise(&ctx, Err(error))
    }
}
