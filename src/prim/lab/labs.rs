//! The lab itself: its name, settling, and output.

#![expect(clippy::unwrap_used, reason = "what `#[export_module]` makes of a property unwraps, and nothing here does")]

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Map};

use crate::lab::Event;
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, raise, with_lab};
use crate::prim::value::units::Table;
use crate::state::{Error, Kind, Result, name};

pub(in crate::prim) const GROUP: Group = Group {
    name: "lab",
    about: "The lab as a whole, and what the script prints.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[],
};

/// The arguments of a script, as it reads them: `args.subnet`.
#[derive(Debug, Clone)]
pub struct Args(Rc<Map>);

impl Args {
    /// Wraps the values of the arguments that the header declares.
    pub fn new(values: Map) -> Args {
        Args(Rc::new(values))
    }

    fn get(&self, name: &str) -> Result<Dynamic> {
        if let Some(value) = self.0.get(name) {
            return Ok(value.clone());
        }
        let error = Error::new(Kind::Missing, format!("unknown argument `{}`", name::shown(name)));
        let names: Vec<&str> = self.0.keys().map(|key| key.as_str()).collect();
        Err(match (name::nearest(name, names.iter().copied()), names.is_empty()) {
            (Some(near), _) => error.hint(format!("did you mean `args.{near}`?")),
            (None, true) => error.hint("a script's header declares its arguments"),
            (None, false) => error.hint(format!("the script's header declares: {}", names.join(", "))),
        })
    }
}

/// Lays out rows as a table: the columns in the order of `columns`, or of their names.
fn lay_out(rows: Array, columns: Option<Vec<String>>) -> Result<Event> {
    let doing = "print a table";
    let mut maps = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let shown = crate::prim::value::options::shown_value(&row);
        let wrong = || Error::invalid(doing).because(format!("row {number} is {shown}, and a row is a map"));
        maps.push(row.try_cast::<Map>().ok_or_else(wrong)?);
    }
    let named = || {
        let mut names: Vec<String> = Vec::new();
        for key in maps.iter().flat_map(Map::keys) {
            if !names.iter().any(|name| name == key.as_str()) {
                names.push(key.to_string());
            }
        }
        names
    };
    let columns = columns.unwrap_or_else(named);
    let cell = |map: &Map, column: &String| map.get(column.as_str()).map_or(serde_json::Value::Null, as_json);
    let rows = maps.iter().map(|map| columns.iter().map(|column| cell(map, column)).collect()).collect();
    Ok(Event::Table(columns, rows))
}

/// Turns a script's value into JSON: handles and addresses become their text.
pub fn as_json(value: &Dynamic) -> serde_json::Value {
    if value.is_unit() {
        return serde_json::Value::Null;
    }
    if let Ok(number) = value.as_int() {
        return number.into();
    }
    if let Ok(number) = value.as_float() {
        return number.into();
    }
    if let Ok(flag) = value.as_bool() {
        return flag.into();
    }
    if let Some(Table(number)) = value.clone().try_cast::<Table>().filter(|table| net::table_name(table.0).is_none()) {
        return number.into();
    }
    if let Some(list) = value.read_lock::<Array>() {
        return list.iter().map(as_json).collect();
    }
    if let Some(map) = value.read_lock::<Map>() {
        return map.iter().map(|(key, value)| (key.to_string(), as_json(value))).collect();
    }
    crate::prim::call::context::text_of(value).into()
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
    /// The script's word for it.
    #[expect(dead_code, reason = "rhai reads the line and not the name")]
    pub type Error = crate::prim::ScriptError;
    /// The script's word for it.
    pub type Args = super::Args;

    /// Names the lab that the script builds; `--name` on the command line goes before it. The script's file name is the name
    /// unless either is given.
    ///
    /// Like the `--name` of `topo run`.
    ///
    /// Fails with `invalid` for a name that breaks the rule for names, and once something was made: the lab has its name by
    /// then.
    ///
    /// ```rhai
    /// lab("office");
    /// netns("h1");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab(ctx: NativeCallContext, name: &str) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| lab.set_name(name))
    }

    /// Returns the name of the lab, which it keeps from then on.
    ///
    /// Like the first column of `topo ls`.
    ///
    /// Fails with `exists` where there is a lab of this name.
    ///
    /// ```rhai
    /// lab("office");
    /// assert(lab_name() == "office");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn lab_name(ctx: NativeCallContext) -> RhaiResultOf<String> {
        with_lab(&ctx, |lab| {
            lab.take_name()?;
            Ok(lab.name().to_string())
        })
    }

    /// Applies what was asked for so far. It happens by itself when something looks at the network and at the script's end;
    /// calling it is for catching the kernel's own refusal where it arises.
    ///
    /// Like the end of an `ip -batch` file.
    ///
    /// Fails with the kernel's refusal of any step, at the line that asked for it.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// try {
    ///     h.route("default", #{ via: "192.0.2.1" });
    ///     settle();
    /// } catch (e) {
    ///     print(e.message);
    /// }
    /// assert(h.routes().is_empty());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn settle(ctx: NativeCallContext) -> RhaiResultOf<()> {
        crate::prim::call::context::settle(&ctx)
    }

    /// Tells the user of something that they may not expect. It goes to standard error, and the script goes on.
    ///
    /// Like `echo "warning: TEXT" >&2`.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// warn("the address was changed");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn warn(ctx: NativeCallContext, text: &str) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            lab.say(&Event::Warning(text.to_string()));
            Ok(())
        })
    }

    /// Prints rows, which are maps, as a table with a column for each key; under `--json`, as a list of objects.
    ///
    /// Like `column -t`.
    ///
    /// Fails with `invalid` where a row is no map.
    ///
    /// ```rhai
    /// table([#{ name: "h1", ip: "10.0.0.1" }, #{ name: "h2", ip: "10.0.0.2" }]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn table(ctx: NativeCallContext, rows: Array) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            let event = lay_out(rows, None)?;
            lab.say(&event);
            Ok(())
        })
    }

    /// Prints rows as a table with the columns given, in their order.
    #[rhai_fn(name = "table", return_raw)]
    pub fn table_with(ctx: NativeCallContext, rows: Array, columns: Array) -> RhaiResultOf<()> {
        with_lab(&ctx, |lab| {
            let columns = columns.iter().map(ToString::to_string).collect();
            let event = lay_out(rows, Some(columns))?;
            lab.say(&event);
            Ok(())
        })
    }

    /// Returns an argument of the script, which its header declares: `args.count`. One that was not given and has no default
    /// is `()`.
    ///
    /// Like `$1` of a shell script, with a name and a type: networks and addresses are values, numbers numbers.
    ///
    /// Fails with `missing` where the header declares no such argument.
    ///
    /// ```rhai
    /// //! An example.
    /// //!
    /// //! Arguments:
    /// //!   --count N    how many   [default: 3]
    /// assert(args.count == 3);
    /// ```
    #[rhai_fn(index_get, return_raw, pure)]
    pub fn argument(ctx: NativeCallContext, args: &mut Args, name: &str) -> RhaiResultOf<Dynamic> {
        raise(&ctx, args.get(name))
    }

    /// Tells whether the header declares an argument: `"count" in args`.
    ///
    /// Like `[ -v COUNT ]` of a shell.
    ///
    /// Fails with nothing.
    ///
    /// ```rhai
    /// assert(!("count" in args));
    /// ```
    #[rhai_fn(name = "contains", pure)]
    pub fn declares(args: &mut Args, name: &str) -> bool {
        args.0.contains_key(name)
    }

    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn args_text(args: &mut Args) -> String {
        as_json(&Dynamic::from_map(Map::clone(&args.0))).to_string()
    }

    /// Returns the sort of an error, for `catch`: {kinds}.
    #[rhai_fn(get = "kind", pure)]
    pub fn error_kind(error: &mut crate::prim::ScriptError) -> String {
        error.0.kind().word().to_string()
    }

    /// Returns what an error says: what was attempted, and why it failed.
    #[rhai_fn(get = "message", pure)]
    pub fn error_message(error: &mut crate::prim::ScriptError) -> String {
        error.0.to_string()
    }

    /// Returns what to do next about an error; empty where nothing is known.
    #[rhai_fn(get = "hint", pure)]
    pub fn error_hint(error: &mut crate::prim::ScriptError) -> String {
        error.0.hint_text().unwrap_or_default().to_string()
    }

    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn error_text(error: &mut crate::prim::ScriptError) -> String {
        error.0.to_string()
    }
}
