//! The CNI plugin (containernetworking/cni, SPEC.md 1.1.0): what CNI_COMMAND asks for, with a configuration on standard input and an answer or
//! an error as JSON on standard output. One plugin is main, IPAM and port mapping in one.

mod answer;
mod conf;
mod install;
mod ipam;

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use super::act::{Refusal, act, collect};
use super::{own_script, refused};
use crate::cmd::context::Context;
use crate::cmd::output::Trouble;
use crate::state::{Kind, name};
use crate::terminal::environment::{self, EnvVariable};
use crate::terminal::{exit, raw, talk};
use conf::Conf;

/// The name under which runtimes start the plugin: the `type` of a configuration.
pub(super) const PLUGIN: &str = "toposcript";
/// The name of the plugin that sets up the loopback device, which containerd before 2.0 calls by itself.
pub(super) const LOOPBACK: &str = "loopback";

/// The versions of the specification that are answered; the oldest one with today's form of an answer comes first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const NEWEST: &str = VERSIONS[VERSIONS.len() - 1];

/// Is the CNI plugin, as a runtime starts it, or installs it
#[derive(Debug, clap::Args)]
pub(in crate::cmd) struct Args {
    #[command(subcommand)]
    command: Option<Cni>,
}

#[derive(Debug, clap::Subcommand)]
enum Cni {
    /// Links the plugin into a directory of plugins, and writes a configuration for a network
    Install(install::Args),
}

/// Runs `topo cni`.
pub(in crate::cmd) fn cni(args: &Args, context: &Context) -> Result<u8, Trouble> {
    match &args.command {
        Some(Cni::Install(args)) => install::install(args),
        None => Ok(answered(run(context))),
    }
}

/// Runs the plugin under its own name.
pub(super) fn plugin(words: &[OsString]) -> u8 {
    answered(run(&Context::new(None, words.to_vec())))
}

/// Runs the plugin for the loopback device.
pub(super) fn loopback() -> u8 {
    answered(run_loopback(&Context::new(None, Vec::new())))
}

/// An error as the specification has it, with the version that was asked for.
#[derive(Debug)]
struct Problem {
    version: String,
    code: u32,
    message: String,
    details: String,
}

/// What the specification's codes are for (SPEC.md, "Error"); those from 100 on are the plugin's own.
mod code {
    pub(super) const VERSION: u32 = 1;
    pub(super) const ENVIRONMENT: u32 = 4;
    pub(super) const IO: u32 = 5;
    pub(super) const DECODE: u32 = 6;
    pub(super) const CONFIG: u32 = 7;
    pub(super) const TRY_LATER: u32 = 11;
    pub(super) const NOT_AVAILABLE: u32 = 50;
    /// The same, and what containers have already is limited.
    pub(super) const LIMITED: u32 = 51;
    pub(super) const EXISTS: u32 = 100;
    pub(super) const MISSING: u32 = 101;
    pub(super) const CHANGED: u32 = 102;
    pub(super) const OTHER: u32 = 103;
}

impl Problem {
    fn new(code: u32, message: impl Into<String>, details: impl Into<String>) -> Problem {
        Problem { version: NEWEST.to_string(), code, message: message.into(), details: details.into() }
    }

    fn of(refusal: Refusal) -> Problem {
        let code = match refusal.kind {
            Some(Kind::Invalid) => code::CONFIG,
            Some(Kind::Exists) => code::EXISTS,
            Some(Kind::Missing | Kind::Gone) => code::MISSING,
            Some(Kind::State) => code::CHANGED,
            Some(Kind::Busy) => code::TRY_LATER,
            _ => code::OTHER,
        };
        Problem::new(code, refusal.message, refusal.hint.unwrap_or_default())
    }

    fn at(self, version: &str) -> Problem {
        Problem { version: version.to_string(), ..self }
    }
}

/// Prints an answer or an error, and returns the exit code.
fn answered(done: Result<Option<Value>, Problem>) -> u8 {
    match done {
        Ok(None) => exit::DONE,
        Ok(Some(answer)) => {
            raw(&format!("{answer}\n"));
            exit::DONE
        }
        Err(Problem { version, code, message, details }) => {
            raw(&format!("{}\n", json!({ "cniVersion": version, "code": code, "msg": message, "details": details })));
            exit::FAILED
        }
    }
}

fn needed(variable: &EnvVariable) -> Result<String, Problem> {
    variable.text().ok_or_else(|| {
        let message = format!("read the environment: `{}` is not set", variable.name());
        Problem::new(code::ENVIRONMENT, message, "a container runtime sets it")
    })
}

/// The container's device that a call is about.
struct Attachment {
    container: String,
    dev: String,
}

impl Attachment {
    fn read() -> Result<Attachment, Problem> {
        let (container, dev) = (needed(&environment::CNI_CONTAINERID)?, needed(&environment::CNI_IFNAME)?);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let begins = container.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !container.chars().all(plain) {
            return Err(Problem::new(
                code::ENVIRONMENT,
                format!("read the environment: CNI_CONTAINERID is `{}`", name::shown(&container)),
                "an id begins with a letter or a digit, and has letters, digits, `_`, `.` and `-`",
            ));
        }
        // dev_valid_name() of net/core/dev.c.
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if dev.len() > 15 || dev == "." || dev == ".." || dev.chars().any(odd) {
            return Err(Problem::new(
                code::ENVIRONMENT,
                format!("read the environment: CNI_IFNAME is `{}`", name::shown(&dev)),
                "a device's name has 15 bytes at most, and no `/`, `:` or blank",
            ));
        }
        Ok(Attachment { container, dev })
    }

    /// Returns what the library knows the container's device by.
    fn key(&self, network: &str) -> String {
        format!("{}{} {}", prefix(network), self.container, self.dev)
    }
}

/// Returns what the keys of all attachments to a network begin with.
fn prefix(network: &str) -> String {
    format!("cni {network} ")
}

/// Answers VERSION, whose configuration may be missing.
fn versions() -> Value {
    let given = super::read_stdin().ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let version = given.as_ref().and_then(|conf| conf::find(conf, "cniVersion")).and_then(Value::as_str);
    json!({ "cniVersion": version.unwrap_or(NEWEST), "supportedVersions": VERSIONS })
}

fn about() -> Option<Value> {
    // Nomad looks for a version in what a plugin says that is started without a word.
    talk(&format!(
        "CNI topo plugin v{}\nCNI protocol versions supported: {}\n",
        env!("CARGO_PKG_VERSION"),
        VERSIONS.join(", ")
    ));
    None
}

fn read_conf() -> Result<Conf, Problem> {
    let text = super::read_stdin()
        .map_err(|error| Problem::new(code::IO, format!("read the configuration from standard input: {error}"), ""))?;
    Conf::parse(&text)
}

fn run(context: &Context) -> Result<Option<Value>, Problem> {
    let Some(command) = environment::CNI_COMMAND.text() else { return Ok(about()) };
    if command == "VERSION" {
        return Ok(Some(versions()));
    }
    if !["ADD", "DEL", "CHECK", "GC", "STATUS"].contains(&command.as_str()) {
        return Err(Problem::new(
            code::ENVIRONMENT,
            format!("read the environment: CNI_COMMAND is `{}`", name::shown(&command)),
            "it is ADD, DEL, CHECK, GC, STATUS or VERSION",
        ));
    }
    let conf = read_conf()?;
    let version = conf.version.clone();
    let named = conf.places()?.map(Context::at);
    let context = named.as_ref().unwrap_or(context);
    let done = match command.as_str() {
        "ADD" => add(&conf, context).map(Some),
        "DEL" => del(&conf, context).map(|()| None),
        "CHECK" => check(&conf, context).map(|()| None),
        "GC" => gc(&conf, context).map(|()| None),
        _ => status(&conf, context).map(|()| None),
    };
    // STATUS is asked every few seconds.
    if let Err(Problem { message, details, .. }) = &done
        && command != "STATUS"
    {
        let refusal = Refusal { kind: None, message: message.clone(), hint: Some(details.clone()) };
        let container = environment::CNI_CONTAINERID.text().unwrap_or_default();
        refused::note(context, &format!("cni {command}"), &container, &refusal);
    }
    done.map_err(|problem| problem.at(&version))
}

fn does(context: &Context, function: &str, args: &Value) -> Result<Value, Problem> {
    let text = format!("import \"doors/cni\" as cni; result(cni::{function}(args) ?? #{{}});");
    act(context, &text, args).map_err(Problem::of)
}

fn add(conf: &Conf, context: &Context) -> Result<Value, Problem> {
    let attachment = Attachment::read()?;
    let netns = needed(&environment::CNI_NETNS)?;
    let (mut wanted, script) = (conf.wanted()?, conf.script()?);
    let delegate = ipam::Delegate::of(conf)?;
    if let Some(delegate) = &delegate {
        wanted.take_delegated(delegate.add()?);
    }
    let args = json!({
        "network": wanted.network, "create": wanted.create, "id": attachment.key(&wanted.network), "netns": netns,
        "dev": attachment.dev, "name": wanted.name(&attachment.container), "options": wanted.options, "shape": wanted.shape,
    });
    let joined = does(context, "add", &args).and_then(|joined| {
        let Some(script) = &script else { return Ok(joined) };
        let told = json!({
            "id": attachment.container, "name": args["name"], "dev": attachment.dev, "annotations": conf.annotations(),
            "ports": wanted.options.get("publish").cloned().unwrap_or_else(|| json!([])),
        });
        let key = attachment.key(&wanted.network);
        own_script::run(context, &own_script::lab_of(&key), script, Path::new(&netns), &told).map_err(|refusal| {
            // The script's failure is told; what can't be given back now is given back at DEL.
            let _ = does(context, "del", &json!({ "network": wanted.network, "id": key }));
            Problem::of(refusal)
        })?;
        Ok(joined)
    });
    match joined {
        Ok(joined) => Ok(answer::of_add(conf, &joined, &netns)),
        Err(problem) => {
            if let Some(delegate) = &delegate {
                let _ = delegate.call("DEL");
            }
            Err(problem)
        }
    }
}

fn del(conf: &Conf, context: &Context) -> Result<(), Problem> {
    let attachment = Attachment::read()?;
    let network = conf.network()?;
    let done = does(context, "del", &json!({ "network": network, "id": attachment.key(&network) }))?;
    // An ADD that was killed may have left what is no endpoint yet. A runtime that calls DEL once more, to be sure, gives no netns.
    if done["was_connected"] == false && environment::CNI_NETNS.text().is_some() {
        collect(context).map_err(Problem::of)?;
    }
    // What another plugin gave is given back to it, whatever is left of the container.
    if let Some(delegate) = ipam::Delegate::of(conf)? {
        delegate.call("DEL")?;
    }
    Ok(())
}

fn check(conf: &Conf, context: &Context) -> Result<(), Problem> {
    let attachment = Attachment::read()?;
    let netns = needed(&environment::CNI_NETNS)?;
    let network = conf.network()?;
    let Some(previous) = conf.previous() else {
        return Err(Problem::new(
            code::CONFIG,
            "check the container: the configuration has no `prevResult`",
            "CHECK is given what ADD answered",
        ));
    };
    let (interfaces, ips) = answer::told(previous, &netns);
    let args = json!({
        "network": network, "id": attachment.key(&network), "netns": netns, "dev": attachment.dev, "name": attachment.container,
        "interfaces": interfaces, "ips": ips,
    });
    does(context, "check", &args)?;
    if let Some(delegate) = ipam::Delegate::of(conf)? {
        delegate.call("CHECK")?;
    }
    Ok(())
}

fn gc(conf: &Conf, context: &Context) -> Result<(), Problem> {
    let network = conf.network()?;
    let key = |(container, dev): (String, String)| Attachment { container, dev }.key(&network);
    // A map, in which each of many is found at once.
    let valid: serde_json::Map<String, Value> = conf.valid()?.into_iter().map(|one| (key(one), json!(true))).collect();
    // What a killed ADD left is no endpoint yet.
    let collected = collect(context);
    does(context, "gc", &json!({ "network": network, "prefix": prefix(&network), "valid": valid }))?;
    collected.map_err(Problem::of)?;
    if let Some(delegate) = ipam::Delegate::of(conf)? {
        delegate.call("GC")?;
    }
    Ok(())
}

fn status(conf: &Conf, context: &Context) -> Result<(), Problem> {
    let wanted = conf.wanted()?;
    let done = does(context, "status", &json!({ "network": wanted.network, "create": wanted.create }));
    done.map_err(|problem| {
        let code = if problem.code == code::CHANGED { code::LIMITED } else { code::NOT_AVAILABLE };
        Problem { code, ..problem }
    })?;
    if let Some(delegate) = ipam::Delegate::of(conf)? {
        delegate.call("STATUS")?;
    }
    Ok(())
}

fn run_loopback(context: &Context) -> Result<Option<Value>, Problem> {
    let Some(command) = environment::CNI_COMMAND.text() else { return Ok(about()) };
    if command == "VERSION" {
        return Ok(Some(versions()));
    }
    let conf = read_conf()?;
    let done = match command.as_str() {
        "ADD" | "CHECK" => {
            let netns = needed(&environment::CNI_NETNS)?;
            let up = act(context, "netns_of(args.netns).lo_up();", &json!({ "netns": netns })).map_err(Problem::of);
            up.map(|_| (command == "ADD").then(|| answer::of_loopback(&conf, &netns)))
        }
        // The device goes with its netns.
        _ => Ok(None),
    };
    done.map_err(|problem| problem.at(&conf.version))
}
