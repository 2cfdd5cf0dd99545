//! What labs have published in a namespace, and the publishing of many steps' ports at once.
//!
//! A look at the maps of all labs costs the more the more is in them. So it is taken once for a generation of the ruleset: as
//! long as the kernel says that nobody has changed anything since, a step needs no other look. And steps that were asked for
//! one after the other add their elements in one transaction, since each one waits for the kernel to be done with the one
//! before it.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::mappings::{AddMappings, Mapping, socket_proto};
use super::ruleset::{self, FAMILY};
use crate::lab::{Joint, Kernel, Step as _};
use crate::net::nft::{self, Batch, Element, Generation, L4Proto, PortRange, Value};
use crate::net::{self, Netns, PortRefusal, Wanted};
use crate::state::{NetnsRef, lab_of_mark};

/// The published ports of a namespace, as they were in one generation of its ruleset.
#[derive(Default)]
pub(super) struct Published {
    generation: Option<Generation>,
    /// By protocol, whether it is one of IPv4, and port.
    ports: HashMap<(u8, bool, u16), Vec<Holder>>,
}

/// Who has published a port.
struct Holder {
    /// The address at which it is published; all unless given.
    at: Option<IpAddr>,
    /// Where it leads.
    to: (IpAddr, u16),
    /// The comment of its element.
    tag: String,
}

/// The namespaces whose published ports are known, by their cookies.
#[derive(Default)]
struct Known(HashMap<u64, Published>);

impl Published {
    /// Takes what is known of a namespace, or looks.
    pub(in crate::prim) fn of(kernel: &mut Kernel, netns: &Netns) -> net::Result<Published> {
        let generation = nft::generation(netns)?;
        let known = generation.and_then(|now| kernel.note::<Known>().0.remove(&now.cookie));
        if let Some(known) = known.filter(|known| known.generation == generation) {
            return Ok(known);
        }
        let mut published = Published { generation, ports: HashMap::new() };
        for set in nft::sets_of(netns, ruleset::is_a_labs)? {
            set.elements.iter().for_each(|element| published.note(element));
        }
        Ok(published)
    }

    /// Keeps what is known for the next one who asks, if all that has changed in the kernel is one transaction of our own.
    pub(in crate::prim) fn keep(mut self, kernel: &mut Kernel, netns: &Netns) {
        let now = nft::generation(netns).ok().flatten();
        if let Some(now) = now.filter(|now| self.generation.map(Generation::next) == Some(*now)) {
            self.generation = Some(now);
            kernel.note::<Known>().0.insert(now.cookie, self);
        }
    }

    fn note(&mut self, element: &Element) {
        let (proto, port, at) = match element.key.as_slice() {
            [Value::Proto(proto), Value::Port(port)] => (proto, port, None),
            [Value::Proto(proto), Value::Ip(at), Value::Port(port)] => (proto, port, Some(*at)),
            _ => return,
        };
        let Some([Value::Ip(to), Value::Port(to_port)]) = element.data.as_deref() else { return };
        let tag = element.comment.clone().unwrap_or_default();
        let key = (proto.number(), to.is_ipv4(), *port);
        self.ports.entry(key).or_default().push(Holder { at, to: (*to, *to_port), tag });
    }

    /// Adds the ports of a mapping; or says which of them another step has published, and to where.
    pub(in crate::prim) fn add(&mut self, mapping: &Mapping, tag: &str) -> Result<(), String> {
        for (port, to_port) in mapping.pairs() {
            let holders = self.ports.entry((mapping.proto.number(), mapping.to.is_ipv4(), port)).or_default();
            let at = mapping.host_ip;
            let clash = holders
                .iter()
                .find(|holder| holder.tag != tag && (holder.at.is_none() || at.is_none() || holder.at == at));
            if let Some(Holder { to: (to, to_port), tag, .. }) = clash {
                let owner = lab_of_mark(tag).unwrap_or(tag);
                let owner = owner.rsplit_once(':').map_or(owner, |(owner, _)| owner);
                let proto = mapping.proto;
                return Err(format!("port {port}/{proto} is published already, to `{to}:{to_port}`, by lab `{owner}`"));
            }
            holders.push(Holder { at, to: (mapping.to, to_port), tag: tag.to_string() });
        }
        Ok(())
    }
}

/// Returns the first of some ports that no lab has published and nothing is bound to.
pub(super) fn free_port(
    kernel: &mut Kernel,
    at: &NetnsRef,
    ports: PortRange,
    proto: L4Proto,
) -> net::Result<Option<u16>> {
    let netns = kernel.netns(at)?;
    let published = Published::of(kernel, &netns)?;
    for port in ports.from..=ports.to {
        if [true, false].iter().any(|v4| published.ports.contains_key(&(proto.number(), *v4, port))) {
            continue;
        }
        let wanted = Wanted { proto: socket_proto(proto), at: None, ports: port..=port };
        match net::port::check_free(&netns, &[wanted]) {
            Ok(()) => return Ok(Some(port)),
            Err(PortRefusal::Kernel(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(None)
}

impl Joint for AddMappings {
    fn goes_with(&self, first: &dyn Joint) -> bool {
        mappings(first).is_some_and(|first| first.table == self.table)
    }

    fn do_all(&self, kernel: &mut Kernel, all: &[&dyn Joint]) -> net::Result<()> {
        let netns = kernel.netns(&self.table.netns)?;
        let all: Vec<&AddMappings> = all.iter().copied().filter_map(mappings).collect();
        commit(kernel, &netns, &all)?;
        all.iter().try_for_each(|step| step.flush(&netns))
    }

    /// It may be another one's port. A large batch may have gone in parts, of which some are in.
    fn splits(&self, kernel: &mut Kernel, all: &[&dyn Joint], refusal: &net::Error) -> net::Result<bool> {
        let splits = matches!(refusal.errno(), libc::EEXIST | libc::EADDRNOTAVAIL | libc::EACCES);
        if splits {
            let all: Vec<&AddMappings> = all.iter().copied().filter_map(mappings).collect();
            withdraw(&kernel.netns(&self.table.netns)?, &self.table.name, &all)?;
        }
        Ok(splits)
    }
}

fn mappings(joint: &dyn Joint) -> Option<&AddMappings> {
    (joint as &dyn Any).downcast_ref()
}

fn commit(kernel: &mut Kernel, netns: &Netns, steps: &[&AddMappings]) -> net::Result<()> {
    let Some(first) = steps.first() else { return Ok(()) };
    // Two labs have two tables: that both publish a port at once, the kernel would not notice. And whoever looks takes each
    // port for a moment, which another lab that looks would take for a server's.
    let _ports = first.lock_ports(kernel)?;
    let mut published = Published::of(kernel, netns)?;
    for step in steps {
        for mapping in &step.mappings {
            published
                .add(mapping, &step.tag)
                .map_err(|text| net::Error::new(step.doing(), libc::EEXIST).saying(text))?;
        }
    }
    AddMappings::check_free(netns, steps)?;
    let mut elements = std::collections::BTreeMap::<&str, Vec<Element>>::new();
    for step in steps {
        for (map, more) in step.elements() {
            elements.entry(map).or_default().extend(more);
        }
    }
    let mut batch = Batch::new();
    for (map, elements) in &elements {
        batch.add_elements(FAMILY, &first.table.name, map, elements, true);
    }
    batch.commit(netns)?;
    published.keep(kernel, netns);
    Ok(())
}

/// Takes out what of some steps is in the kernel.
pub(super) fn withdraw(netns: &Netns, table: &str, steps: &[&AddMappings]) -> net::Result<()> {
    let tags: BTreeSet<&str> = steps.iter().map(|step| step.tag.as_str()).collect();
    let mut batch = Batch::new();
    for mut set in nft::sets_of(netns, |known| known.family == FAMILY && known.name == table)? {
        set.elements.retain(|element| element.comment.as_deref().is_some_and(|comment| tags.contains(comment)));
        if !set.elements.is_empty() {
            batch.delete_elements(FAMILY, table, &set.set.name, &set.elements);
        }
    }
    batch.commit(netns)
}
