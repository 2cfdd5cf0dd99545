//! A lab as a person reads it: namespaces, devices, addresses, routes.

use super::{age, counted};
use crate::lab::{DevView, NetnsView};
use crate::survey::{LabView, ProcessView};

/// Returns a lab with all that it holds, as text.
pub fn lab_text(view: &LabView) -> String {
    let summary = &view.summary;
    let sandbox = if summary.sandbox { ", in a sandbox" } else { "" };
    let mut text = format!(
        "lab {}: {}{sandbox}, {} netns, {}, made by {} {} ago\n",
        summary.name,
        summary.state,
        summary.netns,
        counted(summary.devs, "device", "devices"),
        summary.script,
        age(summary.created, crate::state::now())
    );
    for what in &view.damage {
        text.push_str(&format!("lost: {what}\n"));
    }
    if let Some(because) = &summary.unseen {
        text.push_str(&format!("not looked into: {because}\n"));
    }
    if summary.state == "damaged" {
        text.push_str(&format!("`topo repair {}` puts back what others took away\n", summary.name));
    }
    for netns in &view.namespaces {
        text.push_str(&netns_text(netns));
    }
    if !view.processes.is_empty() {
        text.push_str("\nprocesses\n");
        text.push_str(&processes_text(&view.processes));
    }
    text
}

/// Returns processes as text, a line each.
fn processes_text(processes: &[ProcessView]) -> String {
    let row = |process: &ProcessView| {
        let pid = process.pid.map_or(String::new(), |pid| format!("pid {pid}"));
        [process.name.clone(), format!("in {}", process.netns), pid, process.state.clone()]
    };
    let rows: Vec<[String; 4]> = processes.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (a, b, c) = (width(0), width(1), width(2));
    rows.iter().map(|[name, netns, pid, state]| format!("  {name:a$}  {netns:b$}  {pid:c$}  {state}\n")).collect()
}

/// Returns a namespace with its devices and routes, as text.
pub fn netns_text(netns: &NetnsView) -> String {
    let note = if netns.made { "" } else { "  (not made by this lab)" };
    let mut text = format!("\n{}{note}\n", netns.name);
    if let Some(gone) = &netns.gone {
        text.push_str(&format!("  gone: {gone}\n"));
    }
    let rows: Vec<[String; 3]> = netns.devs.iter().map(dev_row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [name, what, rest] in &rows {
        text.push_str(format!("  {name:first$}  {what:second$}  {rest}").trim_end());
        text.push('\n');
    }
    for route in &netns.routes {
        text.push_str(&format!("  route {route}\n"));
    }
    text
}

/// Returns a device as the cells of a row: its name, its kind and state, and the rest.
pub fn dev_row(dev: &DevView) -> [String; 3] {
    let name = match &dev.kernel_name {
        Some(kernel_name) => format!("{} ({kernel_name})", dev.name),
        None => dev.name.clone(),
    };
    let mut rest = dev.addresses.clone();
    rest.extend(dev.lost.iter().map(|address| format!("without {address}")));
    rest.extend(dev.about.clone());
    rest.extend(dev.on.iter().map(|below| format!("on {below}")));
    if let Some(controller) = &dev.controller {
        rest.push(format!("port of {controller}"));
    }
    if let Some(peer) = &dev.peer {
        rest.push(format!("-- {peer}"));
    }
    [name, format!("{} {}", dev.kind, dev.state), rest.join("  ")]
}
