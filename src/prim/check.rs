//! Checks: sentences that should hold. A soft one is counted, and the run fails at its end; `assert` stops at once.

use std::time::{Duration, Instant};

use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, Map};

use super::Group;
use super::context::{RhaiResultOf, lab_of, place_of, raise, with_lab};
use super::units::argument;
use crate::lab::{CheckResult, Error, Kind, Place, Result, name};
use crate::net;

pub(super) const GROUP: Group = Group {
    name: "check",
    about: "Sentences that should hold.",
    module: || exported_module!(functions),
    steps: &[],
    options: &[],
};

/// Whether a value means yes, and what was measured.
struct Verdict {
    ok: bool,
    measured: Option<String>,
}

fn verdict(doing: &str, value: &Dynamic) -> Result<Verdict> {
    if let Ok(ok) = value.as_bool() {
        return Ok(Verdict { ok, measured: None });
    }
    let map = value.clone().try_cast::<Map>();
    let ok = map.as_ref().and_then(|map| map.get("ok")).and_then(|ok| ok.as_bool().ok());
    match (ok, map) {
        (Some(ok), Some(map)) => Ok(Verdict { ok, measured: Some(measured(&map)) }),
        _ => Err(Error::invalid(doing)
            .because(format!("expected true, false or a probe's result, got {}", super::options::shown_value(value)))),
    }
}

/// Writes a probe's result in one line: why, if it says so, then what it measured.
fn measured(map: &Map) -> String {
    if let Some(why) = map.get("why").filter(|why| !why.is_unit()) {
        return why.to_string();
    }
    let mut parts = Vec::new();
    for (key, value) in map {
        if matches!(key.as_str(), "ok" | "why") || value.is_unit() || value.as_int() == Ok(0) && key == "duplicates" {
            continue;
        }
        let text = match value.as_float() {
            Ok(number) => format!("{number:.3}"),
            Err(_) => value.to_string().trim().escape_debug().take(200).collect(),
        };
        if !text.is_empty() {
            parts.push(format!("{key} {text}"));
        }
    }
    parts.join(", ")
}

fn note(ctx: &NativeCallContext, sentence: &str, verdict: Verdict, place: Place) -> RhaiResultOf<bool> {
    let ok = verdict.ok;
    let result = CheckResult { sentence: sentence.to_string(), ok, measured: verdict.measured, place };
    with_lab(ctx, |lab| {
        lab.note_check(result);
        Ok(())
    })?;
    Ok(ok)
}

/// How long between two looks of `check_within`: the closure itself mostly waits for the network.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits a moment, or until a signal is caught.
fn wait_a_moment(ctx: &NativeCallContext, moment: Duration) -> RhaiResultOf<()> {
    with_lab(ctx, |lab| {
        let (kernel, _) = lab.foreign();
        let pause = async {
            tokio::time::sleep(moment).await;
            Ok(())
        };
        kernel.run_unless_caught("wait", pause).map_err(|source: net::Error| Error::kernel("wait", &source))
    })
}

/// What a script can call.
#[export_module]
pub mod functions {
    /// Stops the script with an error of a kind, as the primitives do: what was attempted, why it can't be, and what to do.
    ///
    /// Like `throw`, with the form that errors of topo have: `catch (e)` finds `e.kind`, `e.message` and `e.hint`.
    ///
    /// Fails with the kind that it is given, and with `invalid` for one that there is not.
    ///
    /// ```rhai
    /// try {
    ///     fail("missing", "find the switch", "nobody made it", "`bridge(\"sw0\")` makes it");
    /// } catch (e) {
    ///     assert(e.kind == "missing" && e.message == "find the switch: nobody made it");
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn fail(ctx: NativeCallContext, kind: &str, doing: &str, because: &str, hint: &str) -> RhaiResultOf<()> {
        let Some(found) = Kind::of_word(kind) else {
            let error = Error::invalid("raise an error").because(format!("there is no kind `{}`", name::shown(kind)));
            return raise(&ctx, Err(error));
        };
        let error = Error::new(found, doing).because(because);
        raise(&ctx, Err(if hint.is_empty() { error } else { error.hint(hint) }))
    }

    /// Notes whether a sentence holds, given true, false or a probe's result. The script goes on either way; a run with a check
    /// that didn't hold fails at its end. Returns whether it holds.
    ///
    /// Like `test` in a shell script, with a report.
    ///
    /// Fails with `invalid` for any other value.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(check("h1 reaches itself", h.ping("127.0.0.1")));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check(ctx: NativeCallContext, sentence: &str, value: Dynamic) -> RhaiResultOf<bool> {
        let place = place_of(&ctx);
        with_lab(&ctx, |lab| lab.settle())?;
        let verdict = raise(&ctx, verdict(&format!("check \"{sentence}\""), &value))?;
        note(&ctx, sentence, verdict, place)
    }

    /// Notes whether a sentence comes to hold within a time: the closure is called until it returns true or a result that is
    /// `ok`, at least once. Returns whether it did.
    ///
    /// Like `timeout 2 sh -c 'until …; do :; done'`.
    ///
    /// Fails with `invalid` for what is no time, and with whatever the closure throws.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(check_within("h1 reaches itself", "2s", || h.ping("127.0.0.1")));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_within(ctx: NativeCallContext, sentence: &str, time: Dynamic, closure: FnPtr) -> RhaiResultOf<bool> {
        let place = place_of(&ctx);
        let doing = format!("check \"{sentence}\"");
        let time: Duration = raise(&ctx, argument(&doing, time))?;
        let began = Instant::now();
        loop {
            let value: Dynamic = closure.call_within_context(&ctx, ())?;
            let mut now = raise(&ctx, verdict(&doing, &value))?;
            let left = time.saturating_sub(began.elapsed());
            if now.ok || left.is_zero() {
                let measured = now.measured.take().filter(|text| !text.is_empty());
                let after = format!("after {:.1?}", began.elapsed());
                now.measured = Some(measured.map_or(after.clone(), |text| format!("{text}, {after}")));
                return note(&ctx, sentence, now, place);
            }
            wait_a_moment(&ctx, LOOK_AGAIN.min(left))?;
        }
    }

    /// Waits for a time. A check with a deadline is nearly always better: it goes on as soon as it can.
    ///
    /// Like `sleep 0.2`.
    ///
    /// Fails with `invalid` for what is no time; Ctrl-C ends it with the run.
    ///
    /// ```rhai
    /// sleep("10ms");
    /// ```
    #[rhai_fn(name = "sleep", return_raw)]
    pub fn sleep_time(ctx: NativeCallContext, time: &str) -> RhaiResultOf<()> {
        let time: Duration = raise(&ctx, argument("sleep", time.into()))?;
        wait_a_moment(&ctx, time)
    }

    /// Waits for some seconds.
    #[rhai_fn(name = "sleep", return_raw)]
    pub fn sleep_seconds(ctx: NativeCallContext, seconds: i64) -> RhaiResultOf<()> {
        sleep_fraction(ctx, seconds as f64)
    }

    /// Waits for some seconds.
    #[rhai_fn(name = "sleep", return_raw)]
    pub fn sleep_fraction(ctx: NativeCallContext, seconds: f64) -> RhaiResultOf<()> {
        let time = Duration::try_from_secs_f64(seconds.max(0.0));
        let time = time.map_err(|error| Error::invalid(format!("sleep for {seconds} seconds")).because(error));
        wait_a_moment(&ctx, raise(&ctx, time)?)
    }

    /// Stops the script unless a value holds: true, or a probe's result that is `ok`.
    ///
    /// Like `test … || exit 1`.
    ///
    /// Fails with `failed`, which `catch` can catch.
    ///
    /// ```rhai
    /// assert(1 + 1 == 2);
    /// try { assert(false); } catch (e) { assert(e.kind == "failed"); }
    /// ```
    #[rhai_fn(name = "assert", return_raw)]
    pub fn assert_plain(ctx: NativeCallContext, value: Dynamic) -> RhaiResultOf<()> {
        assert_sentence(ctx, value, "it holds")
    }

    /// Stops the script unless a value holds, with a sentence that says what should.
    #[rhai_fn(name = "assert", return_raw)]
    pub fn assert_sentence(ctx: NativeCallContext, value: Dynamic, sentence: &str) -> RhaiResultOf<()> {
        lab_of(&ctx).and_then(|lab| lab.with(|lab| lab.settle())).or_else(|error| raise(&ctx, Err(error)))?;
        let doing = format!("assert \"{sentence}\"");
        let verdict = raise(&ctx, verdict(&doing, &value))?;
        if verdict.ok {
            return Ok(());
        }
        let because = verdict.measured.filter(|text| !text.is_empty()).unwrap_or_else(|| "it is false".into());
        raise(&ctx, Err(Error::new(Kind::Failed, doing).because(because)))
    }
}
