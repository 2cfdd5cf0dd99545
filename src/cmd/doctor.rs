//! `topo doctor`: what this machine can do, and how to get what is missing.

use serde_json::{Value, json};

use super::context::Context;
use super::inside;
use super::output::Trouble;
use crate::lab::{Kernel, can_build_here};
use crate::net::{self, Netns, nft};
use crate::prim;
use crate::state::{Error, NetnsAt, NetnsRef, Result};
use crate::terminal::{self, data, exit};

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
    findings.extend(super::doors::looked_at().into_iter().map(|door| Finding {
        what: door.name.into(),
        ok: door.is_open,
        needed: false,
        found: door.about,
        fix: door.fix.into(),
    }));
    print(&findings, args.json);
    let fine = findings.iter().all(|finding| finding.ok || !finding.needed);
    Ok(if fine { exit::DONE } else { exit::LACKS })
}

fn kernel_version() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_string())
}

fn probe() -> Result<Vec<Finding>> {
    let failed = |source: net::Error| Error::kernel("make a network namespace", &source);
    let mut kernel = Kernel::open().map_err(failed)?;
    let netns = Netns::create("topo:doctor").map_err(failed)?;
    let at = NetnsRef { no: 1, name: "doctor".into(), at: NetnsAt::Named, made: true };
    kernel.keep(&at, netns);
    let mut findings = vec![Finding::new("network namespaces", "can be made")];
    let rtnl = kernel.rtnl(&at).map_err(failed)?;
    for feature in net::link_features() {
        let ok = net::has_link_kind(&rtnl, feature.kind).map_err(failed)?;
        let fix = match ok {
            true => String::new(),
            false => format!("a kernel with {}, or `modprobe {}`", feature.option, feature.module),
        };
        let what = format!("link kind {}", feature.kind);
        findings.push(Finding { what, ok, needed: feature.is_needed(), found: feature.about.into(), fix });
    }
    let netns = kernel.netns(&at).map_err(failed)?;
    findings.push(nf_tables(&netns));
    findings.extend(firewalls(&kernel.netns(&NetnsRef::host()).map_err(failed)?));
    let ping = kernel.run(net::ping(&netns, &net::Ping::new(std::net::Ipv4Addr::LOCALHOST.into())));
    findings.push(match ping {
        Ok(report) if report.received > 0 => Finding::new("ping", "echoes are sent and heard"),
        Ok(_) => Finding { ok: false, ..Finding::new("ping", "no answer on lo") },
        Err(source) => Finding::failed("ping", &Error::kernel("open an ICMP socket", &source)),
    });
    Ok(findings)
}

/// Tries what networks need of nf_tables, in a namespace that nobody else sees.
fn nf_tables(netns: &Netns) -> Finding {
    let (family, table) = (nft::Family::Inet, "topo-doctor");
    let base = nft::Base {
        kind: nft::ChainKind::Nat,
        hook: nft::Hook::Postrouting,
        priority: 100,
        policy: nft::Policy::Accept,
    };
    let mut batch = nft::Batch::new();
    batch.add_table(family, table, None);
    batch.add_chain(&nft::Chain { family, table: table.into(), name: "postrouting".into(), base: Some(base) });
    let rule = nft::Rule::new(vec![nft::Match::CtStatusDnat], nft::Action::Masquerade);
    batch.add_rule(family, table, "postrouting", &rule, nft::At::End);
    let what = "nf_tables";
    match batch.commit(netns) {
        Ok(()) => Finding::new(what, "translation, published ports, filters"),
        Err(source) => Finding {
            needed: false,
            fix: "a kernel with CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and CONFIG_NFT_MASQ, or `modprobe nft_masq`"
                .into(),
            ..Finding::failed(what, &Error::kernel("masquerade", &source))
        },
    }
}

/// Tells of firewalls that drop what the host forwards: most are seen to, some can't be.
fn firewalls(host: &Netns) -> Vec<Finding> {
    let what = "forwarding";
    let mut findings = Vec::new();
    for drop in nft::forward_drops(host, prim::is_a_labs).unwrap_or_default() {
        let found = format!("`{} {} {}` drops what it does not know", drop.family, drop.table, drop.base_chain);
        findings.push(match drop.owner {
            None => Finding::new(what, format!("{found}; networks are let through in `{}`", drop.chain)),
            Some(_) => Finding {
                ok: false,
                needed: false,
                fix: "allow the networks there: only the process that owns the table can change it".into(),
                ..Finding::new(what, found)
            },
        });
    }
    for (version, command) in [(nft::IpVersion::V4, "iptables-legacy"), (nft::IpVersion::V6, "ip6tables-legacy")] {
        if nft::legacy_forward_drop(host, version).is_ok_and(|drop| drop.is_some()) {
            findings.push(Finding {
                ok: false,
                needed: false,
                fix: format!("`{command} -I FORWARD -i DEV -j ACCEPT` and `… -o DEV …` for each network's bridge"),
                ..Finding::new(what, format!("{command} drops what it does not know"))
            });
        }
    }
    if findings.is_empty() {
        findings.push(Finding::new(what, "no firewall drops what the host forwards"));
    }
    findings
}

fn print(findings: &[Finding], as_json: bool) {
    if as_json {
        let row = |finding: &Finding| -> Value {
            json!({ "what": finding.what, "ok": finding.ok, "needed": finding.needed, "found": finding.found, "fix": finding.fix })
        };
        return terminal::json(&findings.iter().map(row).collect());
    }
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| vec![finding.state().into(), finding.what.clone(), finding.found.clone(), finding.fix.clone()])
        .collect();
    data(&terminal::table(&["state", "what", "found", "fix"].map(String::from), &rows));
}
