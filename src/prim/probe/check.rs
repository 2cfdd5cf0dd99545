//! Checks: sentences that should hold. A soft one is counted, and the run fails at its end; `assert` stops at once.

use std::time::{Duration, Instant};

use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, Map};

use super::difference::{are_equal, difference, shown};
use crate::lab::{CheckResult, Event};
use crate::net;
use crate::prim::Group;
use crate::prim::call::context::{RhaiResultOf, call, place_of, raise, with_lab};
use crate::prim::value::units::argument;
use crate::state::{Error, Kind, Place, Result};

pub(in crate::prim) const GROUP: Group = Group {
    name: "check",
    about: "Sentences that should hold.",
    functions: exported_manifest!(functions),
    steps: &[],
    options: &[],
};

/// Whether a value means yes, and what was measured.
pub(in crate::prim) struct CheckVerdict {
    pub(in crate::prim) ok: bool,
    measured: Option<String>,
}

pub(in crate::prim) fn verdict(doing: &str, value: &Dynamic) -> Result<CheckVerdict> {
    if let Ok(ok) = value.as_bool() {
        return Ok(CheckVerdict { ok, measured: None });
    }
    let map = value.clone().try_cast::<Map>();
    let ok = map.as_ref().and_then(|map| map.get("ok")).and_then(|ok| ok.as_bool().ok());
    match (ok, map) {
        (Some(ok), Some(map)) => Ok(CheckVerdict { ok, measured: Some(measured(&map)) }),
        _ => Err(Error::invalid(doing).because(format!(
            "expected true, false or a probe's result, got {}",
            crate::prim::value::options::shown_value(value)
        ))),
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

fn note(ctx: &NativeCallContext, sentence: &str, verdict: CheckVerdict, place: Place) -> RhaiResultOf<bool> {
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
pub(in crate::prim) fn wait_a_moment(ctx: &NativeCallContext, moment: Duration) -> RhaiResultOf<()> {
    with_lab(ctx, |lab| {
        let pause = async {
            tokio::time::sleep(moment).await;
            Ok(())
        };
        lab.wait_for("wait", pause).map_err(|source: net::Error| Error::kernel("wait", &source))
    })
}

/// Calls a closure until it holds or the time is up, at least once; returns the last verdict.
fn until(ctx: &NativeCallContext, doing: &str, time: Duration, closure: &FnPtr) -> RhaiResultOf<CheckVerdict> {
    let began = Instant::now();
    loop {
        let value: Dynamic = call(ctx, closure)?;
        let now = raise(ctx, verdict(doing, &value))?;
        let left = time.saturating_sub(began.elapsed());
        if now.ok || left.is_zero() {
            with_lab(ctx, |lab| {
                lab.arrived();
                Ok(())
            })?;
            return Ok(now);
        }
        with_lab(ctx, |lab| {
            let waited = began.elapsed().as_secs();
            lab.waiting(began, || format!("{doing}: it does not hold for {waited} of {:.1?}", time));
            Ok(())
        })?;
        wait_a_moment(ctx, LOOK_AGAIN.min(left))?;
    }
}

/// Settles, since an assertion sees what was asked for before.
fn settle(ctx: &NativeCallContext) -> RhaiResultOf<()> {
    with_lab(ctx, |lab| lab.settle())
}

fn named(what: &str, sentence: &str) -> String {
    if sentence.is_empty() { what.into() } else { format!("{what} \"{sentence}\"") }
}

/// What a script can call.
#[export_module(manifest)]
pub mod functions {
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
        let mut last = until(&ctx, &doing, time, &closure)?;
        let measured = last.measured.take().filter(|text| !text.is_empty());
        let after = format!("after {:.1?}", began.elapsed());
        last.measured = Some(measured.map_or(after.clone(), |text| format!("{text}, {after}")));
        note(&ctx, sentence, last, place)
    }

    /// Notes whether something never comes true during a time: the second closure is called again and again, and must not return
    /// true or a result that is `ok`. The first closure is the control: what must come to hold before, within the same time, since
    /// what fails anyway would prove nothing. Returns whether it never came true.
    ///
    /// Like `! timeout 0.5 sh -c 'until …; do :; done'`.
    ///
    /// Fails with `invalid` for what is no time, and with whatever the closures throw.
    ///
    /// ```rhai
    /// let h = netns("h1");
    /// assert(check_never("h1 reaches nobody else", "100ms", || h.ping("127.0.0.1"), || h.ping("192.0.2.1")));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn check_never(
        ctx: NativeCallContext,
        sentence: &str,
        time: Dynamic,
        control: FnPtr,
        closure: FnPtr,
    ) -> RhaiResultOf<bool> {
        let place = place_of(&ctx);
        let doing = format!("check \"{sentence}\"");
        let time: Duration = raise(&ctx, argument(&doing, time))?;
        let control = until(&ctx, &doing, time, &control)?;
        if !control.ok {
            let measured =
                control.measured.filter(|text| !text.is_empty()).map_or(String::new(), |text| format!(": {text}"));
            let measured = Some(format!("the control doesn't hold, so it would mean nothing{measured}"));
            return note(&ctx, sentence, CheckVerdict { ok: false, measured }, place);
        }
        let began = Instant::now();
        let watched = until(&ctx, &doing, time, &closure)?;
        let after = format!("after {:.1?}", began.elapsed());
        let measured = match (watched.ok, watched.measured.filter(|text| !text.is_empty())) {
            (true, Some(text)) => format!("it came true {after}: {text}"),
            (true, None) => format!("it came true {after}"),
            (false, Some(text)) => format!("{text}, {after} still"),
            (false, None) => format!("not {after} either"),
        };
        note(&ctx, sentence, CheckVerdict { ok: !watched.ok, measured: Some(measured) }, place)
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
        settle(&ctx)?;
        let doing = format!("assert \"{sentence}\"");
        let verdict = raise(&ctx, verdict(&doing, &value))?;
        if verdict.ok {
            return Ok(());
        }
        let because = verdict.measured.filter(|text| !text.is_empty()).unwrap_or_else(|| "it is false".into());
        raise(&ctx, Err(Error::new(Kind::Failed, doing).because(because)))
    }

    /// Stops the script unless two values are equal: numbers by their value, lists and maps by all that is in them.
    ///
    /// Like `test A = B || exit 1`, and tells where they differ: the path within lists and maps, the lines of texts.
    ///
    /// Fails with `failed`, which `catch` can catch.
    ///
    /// ```rhai
    /// assert_eq(host.exec("echo one").stdout.split(), ["one"]);
    /// try { assert_eq(#{ mtu: 1500 }, #{ mtu: 1400 }); } catch (e) {
    ///     assert(e.message == "assert_eq: at `mtu`: 1500 is not 1400");
    /// }
    /// ```
    #[rhai_fn(name = "assert_eq", return_raw)]
    pub fn assert_eq_plain(ctx: NativeCallContext, left: Dynamic, right: Dynamic) -> RhaiResultOf<()> {
        assert_eq_sentence(ctx, left, right, "")
    }

    /// Stops the script unless two values are equal, with a sentence that says what should.
    #[rhai_fn(name = "assert_eq", return_raw)]
    pub fn assert_eq_sentence(
        ctx: NativeCallContext,
        left: Dynamic,
        right: Dynamic,
        sentence: &str,
    ) -> RhaiResultOf<()> {
        settle(&ctx)?;
        match difference(&left, &right) {
            Some(how) => raise(&ctx, Err(Error::new(Kind::Failed, named("assert_eq", sentence)).because(how))),
            None => Ok(()),
        }
    }

    /// Stops the script if two values are equal.
    ///
    /// Like `test A != B || exit 1`.
    ///
    /// Fails with `failed`, which `catch` can catch.
    ///
    /// ```rhai
    /// assert_ne(netns("h1").name, netns("h2").name);
    /// ```
    #[rhai_fn(name = "assert_ne", return_raw)]
    pub fn assert_ne_plain(ctx: NativeCallContext, left: Dynamic, right: Dynamic) -> RhaiResultOf<()> {
        assert_ne_sentence(ctx, left, right, "")
    }

    /// Stops the script if two values are equal, with a sentence that says what should not.
    #[rhai_fn(name = "assert_ne", return_raw)]
    pub fn assert_ne_sentence(
        ctx: NativeCallContext,
        left: Dynamic,
        right: Dynamic,
        sentence: &str,
    ) -> RhaiResultOf<()> {
        settle(&ctx)?;
        if !are_equal(&left, &right) {
            return Ok(());
        }
        let because = format!("both are {}", shown(&left));
        raise(&ctx, Err(Error::new(Kind::Failed, named("assert_ne", sentence)).because(because)))
    }

    /// Ends a test that this machine can't do: it counts as skipped, with the reason. An error of kind `unsupported` that leaves a
    /// test does the same by itself.
    ///
    /// Like `exit 77` in tests of automake.
    ///
    /// Fails with `unsupported`, which in `topo run` ends the script with exit code 3.
    ///
    /// ```rhai
    /// try { skip("needs iperf3"); } catch (e) { assert(e.kind == "unsupported"); }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn skip(ctx: NativeCallContext, reason: &str) -> RhaiResultOf<()> {
        raise(&ctx, Err(Error::new(Kind::Unsupported, "skip").because(reason)))
    }

    /// Says that the test which runs is meant to fail, and why: it passes if it then fails, and fails if it passes. Other than in
    /// `topo test` this does nothing.
    ///
    /// Like `# TODO` in TAP.
    ///
    /// Fails with `invalid` for a reason that is empty.
    ///
    /// ```rhai
    /// expect_failure("bridges can't yet do this");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn expect_failure(ctx: NativeCallContext, reason: &str) -> RhaiResultOf<()> {
        if reason.trim().is_empty() {
            return raise(&ctx, Err(Error::invalid("expect a failure").because("it needs a reason")));
        }
        with_lab(&ctx, |lab| {
            lab.say(&Event::ExpectFailure(reason.to_string()));
            Ok(())
        })
    }

    /// Gives the test which runs another time limit than that of `--timeout`, counted from its beginning. Other than in
    /// `topo test` this does nothing.
    ///
    /// Like `timeout 2m`.
    ///
    /// Fails with `invalid` for what is no time.
    ///
    /// ```rhai
    /// time_limit("2m");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn time_limit(ctx: NativeCallContext, time: &str) -> RhaiResultOf<()> {
        let time: Duration = raise(&ctx, argument("limit the time", time.into()))?;
        with_lab(&ctx, |lab| {
            lab.say(&Event::TimeLimit(time));
            Ok(())
        })
    }
}
