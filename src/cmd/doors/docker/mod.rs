//! `topo docker serve`: the network and IPAM driver of Docker (moby, pkg/plugins and libnetwork's drivers/remote, docs/remote.md). Docker
//! sends a request over HTTP for each thing that it wants; each is done by a process of its own, as every other door does it.

mod call;
mod names;
mod pools;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cmd::context::{Context, this_program};
use crate::cmd::output::Trouble;
use crate::net::probe::http::HttpRequest;
use crate::net::process::signal;
use crate::net::service::{Listening, ServiceAnswer};
use crate::state::{Error, Kind, Result};
use crate::terminal::{environment, exit, talk};

pub(super) use call::{CALL, answer};
use names::DockerEvents;
use pools::PendingPools;

pub(in crate::cmd) use names::wait_for_names;

/// Is the network driver of Docker: `docker network create --driver toposcript --ipam-driver toposcript NETWORK`
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(in crate::cmd) struct Args {
    #[command(subcommand)]
    command: Docker,
}

#[derive(Debug, Subcommand)]
enum Docker {
    /// Answers Docker until a signal ends it
    ///
    /// A socket that systemd hands over is used instead of SOCKET.
    Serve(Serve),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where Docker finds the driver; the file's name is the driver's
    #[arg(long, value_name = "SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Where Docker itself listens: it is asked what it calls a network
    #[arg(long, value_name = "SOCKET", default_value = names::DOCKER)]
    docker: PathBuf,
    /// End when Docker has asked nothing for so many seconds: a socket unit of systemd starts it again
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle: Option<u64>,
}

/// Where Docker looks for drivers (docker/cli, docs/extend/plugin_api.md).
pub(super) const SOCKET: &str = "/run/docker/plugins/toposcript.sock";
/// The media type of the answers.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Runs `topo docker`.
pub(in crate::cmd) fn docker(args: &Args, context: &Context) -> std::result::Result<u8, Trouble> {
    let Docker::Serve(args) = &args.command;
    signal::catch().map_err(|source| Error::kernel("catch signals", &source))?;
    let program = this_program()?;
    let is_given = environment::LISTEN_PID.text() == Some(std::process::id().to_string())
        && environment::LISTEN_FDS.text().is_some_and(|count| count != "0");
    let listening = if is_given { Listening::given() } else { Listening::at(&args.socket) };
    let listening = listening.map_err(|source| {
        let hint = match source.errno() {
            libc::EADDRINUSE => "another `topo docker serve` runs: end it, or give another `--socket`",
            libc::EEXIST => "something that is no socket is there: move it away",
            _ => "Docker looks for drivers in `/run/docker/plugins`, which root can write to",
        };
        Error::kernel("serve Docker", &source).hint(hint)
    })?;
    if let Some(error) = failure_in(&run(&program, call::SWEEP, &json!({ "body": {} }))) {
        talk(&format!("warning: look for containers of Docker that have ended: {error}\n"));
    }
    if !is_given {
        talk(&format!("serving Docker at {}\n", args.socket.display()));
    }
    let serving = Arc::new(Serving {
        program,
        docker: args.docker.clone(),
        state: context.state()?.root().to_path_buf(),
        pools: PendingPools::default(),
    });
    let asked = serving.clone();
    let answer = move |request: &HttpRequest| asked.clone().answer(request);
    listening
        .serve(args.idle.map(Duration::from_secs), || serving.pools.is_empty(), answer)
        .map_err(|source| Error::kernel("serve Docker", &source))?;
    // SIGTERM is how a service is stopped: that is a success.
    Ok(if signal::caught() == Some(libc::SIGINT) { exit::INTERRUPTED } else { exit::DONE })
}

/// What the answers are made by.
struct Serving {
    program: PathBuf,
    docker: PathBuf,
    state: PathBuf,
    pools: PendingPools,
}

impl Serving {
    fn answer(self: Arc<Self>, request: &HttpRequest) -> ServiceAnswer {
        let method = request.path.trim_start_matches('/');
        if !call::METHODS.contains(&method) {
            return (404, "text/plain", format!("topo has no `{}`\n", crate::state::name::shown(method)).into_bytes());
        }
        let unnamed = if method == "NetworkDriver.CreateNetwork" { call::unnamed_network(&request.body) } else { None };
        let names = unnamed.and_then(|network| Some((DockerEvents::listen(&self.docker, &self.state)?, network)));
        let reply = self.pools.around(method, &request.body, |input| run(&self.program, method, input));
        if let Some((names, network)) = names.filter(|_| failure_in(&Ok(reply.clone())).is_none()) {
            let program = self.program.clone();
            std::thread::spawn(move || {
                names.tell(&network, |name| {
                    let named = json!({ "body": { "NetworkID": network, "Name": name } });
                    // Without its name it goes by Docker's number.
                    let _ = run(&program, call::NAME, &named);
                });
            });
        }
        (200, MEDIA_TYPE, reply.into_bytes())
    }
}

/// Returns the error that an answer is.
fn failure_in(reply: &Done) -> Option<String> {
    match reply {
        Err(error) => Some(error.to_string()),
        Ok(text) => {
            let reply: Value = serde_json::from_str(text).unwrap_or_default();
            ["Err", "Error"].iter().find_map(|key| reply[key].as_str()).map(String::from)
        }
    }
}

/// Does one request in a process of its own: what it does there is journaled, whatever becomes of this one.
fn run(program: &Path, method: &str, input: &Value) -> std::result::Result<String, Error> {
    let failed = |source: std::io::Error| Error::file("run a process for Docker's request", &source);
    let mut child = Command::new(program)
        .args([CALL, method])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended says why by its answer, or by having none.
        let _ = stdin.write_all(input.to_string().as_bytes());
    }
    let ended = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8(ended.stdout).unwrap_or_default();
    match serde_json::from_str::<Value>(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Error::new(Kind::State, "do what Docker asks for")
            .because(format!("the process for it ended without an answer ({})", ended.status))
            .hint("`topo gc` removes what it left")),
    }
}

/// Returns an answer that is an error, as Docker shows it: the two halves of the protocol have it under two keys.
fn error_reply(method: &str, text: &str) -> Value {
    let key = if method.starts_with("IpamDriver") { "Error" } else { "Err" };
    json!({ key: text })
}

/// Returns an error's text with what to do about it.
fn with_hint(message: &str, hint: Option<&str>) -> String {
    hint.map_or(message.to_string(), |hint| format!("{message} ({hint})"))
}

type Done = Result<String>;
