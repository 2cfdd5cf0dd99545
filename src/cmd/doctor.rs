//! `topo doctor`: what this machine can do, and how to get what is missing.

use serde_json::{Value, json};

use super::context::Context;
use super::inside;
use super::output::{self, Trouble, data};
use crate::lab::{Error, Kernel, NetnsAt, NetnsRef, Result, can_build_here};
use crate::net::{self, Netns};

/// Tells what this machine can do, asked of the kernel itself, and how to get what is missing. Changes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
struct Finding {
    what: String,
    ok: bool,
    needed: bool,
    found: String,
    fix: String,
}

impl Finding {
    fn new(what: &str, found: impl Into<String>) -> Finding {
        Finding { what: what.into(), ok: true, needed: true, found: found.into(), fix: String::new() }
    }

    fn failed(what: &str, error: &Error) -> Finding {
        let fix = error.hint_text().unwrap_or_default().to_string();
        Finding { ok: false, fix, ..Finding::new(what, error.to_string()) }
    }

    fn state(&self) -> &'static str {
        match (self.ok, self.needed) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "missing",
        }
    }
}

/// The kinds of links that labs are made of, what they are for, and whether nothing works without them.
const KINDS: &[(&str, &str, bool)] = &[
    ("veth", "cables", true),
    ("bridge", "switches", true),
    ("vlan", "tagged links", false),
    ("vxlan", "tunnels between hosts", false),
    ("macvlan", "several addresses on one link", false),
    ("ipvlan", "several hosts on one link", false),
    ("dummy", "links to nowhere", false),
    ("vrf", "several routing domains in one host", false),
    ("bond", "several links as one", false),
    ("ifb", "shaping of incoming traffic", false),
    ("wireguard", "encrypted tunnels", false),
    ("gre", "GRE tunnels", false),
];

/// Runs `topo doctor`.
pub(super) fn doctor(args: &Args, context: &Context) -> std::result::Result<u8, Trouble> {
    let mut findings = Vec::new();
    if inside::needs_sandbox(false, context) {
        match inside::run_in_new(context, None) {
            Ok(code) => return Ok(code),
            Err(error) => findings.push(Finding::failed("sandbox", &error)),
        }
    }
    let state = context.state().map_or_else(
        |error| Finding::failed("state directory", &error),
        |state| Finding::new("state directory", state.root().display().to_string()),
    );
    findings.insert(0, Finding::new("kernel", kernel_version()));
    findings.insert(1, state);
    if can_build_here() {
        let how = match context.inside {
            Some(_) => "no rights on the host: labs are built in sandboxes",
            None => "labs are built on the host, or in sandboxes with --sandbox",
        };
        findings.push(Finding::new("rights", how));
        match probe() {
            Ok(more) => findings.extend(more),
            Err(error) => findings.push(Finding::failed("network namespaces", &error)),
        }
    }
    print(&findings, args.json);
    Ok(if findings.iter().all(|finding| finding.ok || !finding.needed) { 0 } else { 3 })
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_string())
}

fn probe() -> Result<Vec<Finding>> {
    let failed = |source: net::Error| Error::kernel("make a network namespace", &source);
    let mut kernel = Kernel::open("topo:doctor").map_err(failed)?;
    let netns = Netns::create("topo:doctor").map_err(failed)?;
    let at = NetnsRef { no: 1, name: "doctor".into(), at: NetnsAt::Named, made: true };
    kernel.keep(&at, netns);
    let mut findings = vec![Finding::new("network namespaces", "can be made")];
    let rtnl = kernel.rtnl(&at).map_err(failed)?;
    for (kind, purpose, needed) in KINDS {
        let ok = kernel.run(net::has_link_kind(&rtnl, kind)).map_err(failed)?;
        let fix = if ok {
            String::new()
        } else {
            format!("a kernel with CONFIG_{}, or `modprobe {}`", config(kind), module(kind))
        };
        findings.push(Finding {
            what: format!("link kind {kind}"),
            ok,
            needed: *needed,
            found: (*purpose).into(),
            fix,
        });
    }
    let netns = kernel.netns(&at).map_err(failed)?;
    let ping = kernel.run(net::ping(&netns, &net::Ping::new(std::net::Ipv4Addr::LOCALHOST.into())));
    findings.push(match ping {
        Ok(report) if report.received > 0 => Finding::new("ping", "echoes are sent and heard"),
        Ok(_) => Finding { ok: false, ..Finding::new("ping", "no answer on lo") },
        Err(source) => Finding::failed("ping", &Error::kernel("open an ICMP socket", &source)),
    });
    Ok(findings)
}

fn config(kind: &str) -> String {
    match kind {
        "vlan" => "VLAN_8021Q".into(),
        "vrf" => "NET_VRF".into(),
        "bond" => "BONDING".into(),
        "gre" => "NET_IPGRE".into(),
        kind => kind.to_uppercase(),
    }
}

fn module(kind: &str) -> &str {
    match kind {
        "vlan" => "8021q",
        "bond" => "bonding",
        "gre" => "ip_gre",
        kind => kind,
    }
}

fn print(findings: &[Finding], as_json: bool) {
    if as_json {
        let row = |finding: &Finding| -> Value {
            json!({ "what": finding.what, "ok": finding.ok, "needed": finding.needed, "found": finding.found, "fix": finding.fix })
        };
        return output::json(&findings.iter().map(row).collect());
    }
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| vec![finding.state().into(), finding.what.clone(), finding.found.clone(), finding.fix.clone()])
        .collect();
    data(&output::table(&["state", "what", "found", "fix"].map(String::from), &rows));
}
