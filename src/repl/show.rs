//! How a session shows the value of a statement, and the lab as a tree.

use rhai::{Array, Dynamic, Map};
use serde_json::Value;

use crate::lab::{DevView, Lab, NetnsView};
use crate::prim::{Dev, NetnsHandle, as_json};
use crate::state::Result;
use crate::terminal::{cell, counted, dev_row, table};

/// Returns a value as lines of text; nothing for `()`.
pub(super) fn shown(lab: &mut Lab, value: &Dynamic) -> Result<String> {
    if value.is_unit() {
        return Ok(String::new());
    }
    if let Some(netns) = value.clone().try_cast::<NetnsHandle>() {
        return netns_line(lab, &netns);
    }
    if let Some(dev) = value.clone().try_cast::<Dev>() {
        return dev_line(lab, &dev);
    }
    if let Some(list) = value.read_lock::<Array>() {
        return list_lines(lab, &list);
    }
    if value.is_string() {
        let text = value.clone().into_string().unwrap_or_default();
        // A text of lines, such as a command's output, is read as it is.
        return Ok(if text.contains('\n') { with_newline(text) } else { format!("{}\n", quoted(&text)) });
    }
    Ok(match as_json(value) {
        Value::Object(map) => map_lines(&map),
        Value::String(text) => format!("{text}\n"),
        other => format!("{}\n", compact(&other)),
    })
}

fn list_lines(lab: &mut Lab, list: &Array) -> Result<String> {
    let is_handle = |value: &Dynamic| value.is::<Dev>() || value.is::<NetnsHandle>();
    if !list.is_empty() && list.iter().all(is_handle) {
        return list.iter().map(|value| shown(lab, value)).collect();
    }
    if !list.is_empty() && list.iter().all(|value| value.is::<Map>()) {
        let rows: Vec<Value> = list.iter().map(as_json).collect();
        return Ok(rows_as_table(&rows));
    }
    Ok(format!("{}\n", compact(&list.iter().map(as_json).collect())))
}

/// Lays out maps as a table: a column a key, in the order in which they are first met.
fn rows_as_table(rows: &[Value]) -> String {
    let maps: Vec<&serde_json::Map<String, Value>> = rows.iter().filter_map(Value::as_object).collect();
    let mut titles: Vec<String> = Vec::new();
    for key in maps.iter().flat_map(|map| map.keys()) {
        if !titles.contains(key) {
            titles.push(key.clone());
        }
    }
    let cells: Vec<Vec<String>> = maps
        .iter()
        .map(|map| titles.iter().map(|title| map.get(title).map_or(String::new(), cell)).collect())
        .collect();
    table(&titles, &cells)
}

/// Writes a map, a line a key; a text of several lines stands below its key.
fn map_lines(map: &serde_json::Map<String, Value>) -> String {
    if map.is_empty() {
        return "#{}\n".into();
    }
    let width = map.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    let line = |(key, value): (&String, &Value)| match value {
        Value::String(text) if text.trim_end().contains('\n') => {
            let lines: String = text.trim_end().lines().map(|line| format!("  {line}\n")).collect();
            format!("{key}:\n{lines}")
        }
        other => format!("{:1$} {2}\n", format!("{key}:"), width + 1, compact(other)),
    };
    map.iter().map(line).collect()
}

/// Writes a value in one line, as a script would.
fn compact(value: &Value) -> String {
    match value {
        Value::Null => "()".into(),
        Value::String(text) => quoted(text.trim_end_matches('\n')),
        Value::Array(list) => format!("[{}]", list.iter().map(compact).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let parts: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", compact(value))).collect();
            format!("#{{ {} }}", parts.join(", "))
        }
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            // More digits than were measured say nothing.
            Some(number) => ((number * 1000.0).round() / 1000.0).to_string(),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn with_newline(text: String) -> String {
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn netns_line(lab: &mut Lab, netns: &NetnsHandle) -> Result<String> {
    /// How many devices are shown with their addresses.
    const SHOWN: usize = 4;
    let at = netns.living(lab)?;
    let view = lab.look_into(&at)?;
    if let Some(gone) = view.gone {
        return Ok(format!("netns {}: gone, {gone}\n", at.name));
    }
    let devs: Vec<String> = view.devs.iter().take(SHOWN).map(brief).collect();
    let more = view.devs.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    Ok(match (at.made, devs.is_empty()) {
        (_, false) => format!("netns {}: {}{more}\n", at.name, devs.join(", ")),
        (true, true) => format!("netns {}: no devices but lo\n", at.name),
        (false, true) => format!("netns {}\n", at.name),
    })
}

fn brief(dev: &DevView) -> String {
    let mut words = vec![dev.name.clone()];
    words.extend(dev.addresses.iter().cloned());
    if dev.state != "up" {
        words.push(format!("({})", dev.state));
    }
    words.join(" ")
}

fn dev_line(lab: &mut Lab, dev: &Dev) -> Result<String> {
    let Some(entry) = dev.find(lab)? else {
        return Ok(format!("dev {} of {}: not there\n", dev.name, dev.netns.0.name));
    };
    let view = lab.look_into(&entry.dev.netns)?;
    let found = view.devs.iter().find(|row| row.name == entry.dev.name);
    Ok(match found {
        Some(row) => {
            let [name, what, rest] = dev_row(row);
            format!("dev {name} of {}: {what}  {rest}", entry.dev.netns.name).trim_end().to_string() + "\n"
        }
        None => format!("dev {} of {}\n", entry.dev.name, entry.dev.netns.name),
    })
}

/// Draws what a lab holds as a tree: namespaces, their devices, and the labs that are parts of it.
pub(super) fn tree(name: &str, namespaces: &[NetnsView], parts: &[String]) -> String {
    let devs = namespaces.iter().map(|netns| netns.devs.len()).sum();
    let made = namespaces.iter().filter(|netns| netns.made).count();
    let mut text = format!("{name}: {made} netns, {}\n", counted(devs, "device", "devices"));
    let mut branches: Vec<(String, Vec<String>)> = namespaces.iter().map(branch).collect();
    branches.extend(parts.iter().map(|part| (format!("lab {part}"), Vec::new())));
    for (at, (title, leaves)) in branches.iter().enumerate() {
        let last = at + 1 == branches.len();
        text.push_str(&format!("{} {title}\n", if last { "└─" } else { "├─" }));
        for (at, leaf) in leaves.iter().enumerate() {
            let bar = if last { " " } else { "│" };
            let corner = if at + 1 == leaves.len() { "└─" } else { "├─" };
            text.push_str(&format!("{bar}  {corner} {leaf}\n"));
        }
    }
    text
}

fn branch(netns: &NetnsView) -> (String, Vec<String>) {
    let title = match (&netns.gone, netns.made) {
        (Some(gone), _) => format!("{}: {gone}", netns.name),
        (None, true) => netns.name.clone(),
        (None, false) => format!("{} (not made by this lab)", netns.name),
    };
    let rows: Vec<[String; 3]> = netns.devs.iter().map(dev_row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let devs = rows.iter().map(|[name, what, rest]| format!("{name:first$}  {what:second$}  {rest}").trim_end().into());
    let routes = netns.routes.iter().map(|route| format!("route {route}"));
    (title, devs.chain(routes).collect())
}
