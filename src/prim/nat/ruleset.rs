//! The tables of nf_tables that labs have: one a lab and namespace, which bears the lab's mark, with all that its primitives
//! add. What goes with the table is not taken back by itself.

use serde::{Deserialize, Serialize};

use crate::lab::{Footprint, Kernel, Lab, Model, Op, Outcome, Step, StepSort};
use crate::net::nft::{self, At, Base, Batch, Chain, ChainKind, Family, Hook, Policy, Rule, Set};
use crate::net::{self, Netns};
use crate::state::{Error, Kind, LabKind, NetnsRef, Place, Result, TableRef, lab_of_mark, name};

/// A table as steps refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LabTable {
    /// The namespace that it is in.
    pub netns: NetnsRef,
    /// Its name.
    pub name: String,
    /// The mark that it bears as its comment: that of the lab that it is.
    pub mark: String,
    /// Whether it belongs to the lab that refers to it; an endpoint uses its network's.
    pub own: bool,
}

impl LabTable {
    /// Names the table for a lab's steps in a namespace: an endpoint's are in its network's table.
    pub(in crate::prim) fn of(lab: &mut Lab, netns: &NetnsRef) -> Result<LabTable> {
        lab.take_name()?;
        let (owner, mark) = owner_of(lab)?;
        Ok(LabTable { netns: netns.clone(), name: table_name(&mark), own: owner == lab.name(), mark })
    }

    /// Asks for the table itself, unless it has been asked for or is another lab's.
    pub(in crate::prim) fn ask(&self, lab: &mut Lab, place: &Place) -> Result<()> {
        if !self.own || lab.model().has_table(&self.reference()) {
            return Ok(());
        }
        lab.ask(AddTable { table: self.clone() }, place.clone())
    }

    pub(super) fn reference(&self) -> TableRef {
        TableRef { netns: self.netns.no, name: self.name.clone() }
    }

    /// Returns the namespace, if the table in it is still the one that is meant.
    pub(in crate::prim) fn find(&self, kernel: &mut Kernel) -> net::Result<Option<Netns>> {
        let netns = kernel.netns(&self.netns)?;
        let is_it = |table: &nft::Table| {
            table.family == FAMILY && table.name == self.name && table.comment.as_deref() == Some(self.mark.as_str())
        };
        Ok(kernel.nft_tables(&self.netns)?.iter().any(is_it).then_some(netns))
    }

    /// Notes a table that has the lab's name and not its mark, if there is one.
    fn leave_changed(&self, kernel: &mut Kernel) -> net::Result<()> {
        let tables = nft::list_tables(&kernel.netns(&self.netns)?)?;
        if let Some(table) = tables.iter().find(|table| table.family == FAMILY && table.name == self.name) {
            let what = format!("table `{FAMILY} {}` in netns `{}`", self.name, self.netns.name);
            kernel.leave_unmarked(&what, table.comment.as_deref());
        }
        Ok(())
    }

    /// Returns a chain of the table that the kernel calls.
    pub(super) fn base_chain(&self, name: &str, kind: ChainKind, hook: Hook, priority: i32) -> Chain {
        let base = Some(Base { kind, hook, priority, policy: Policy::Accept });
        Chain { family: FAMILY, table: self.name.clone(), name: name.into(), base }
    }

    /// Returns the chain of the table that filters at a hook.
    pub(super) fn filter_chain(&self, hook: Hook) -> Chain {
        self.base_chain(&hook.to_string(), ChainKind::Filter, hook, 0)
    }

    /// Returns the chain of the table that translates sources.
    pub(super) fn postrouting(&self) -> Chain {
        self.base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 100)
    }
}

/// Tables of labs see both versions of IP.
pub(super) const FAMILY: Family = Family::Inet;

/// How the names of labs' tables begin; whose one is, its comment says.
const TABLE_PREFIX: &str = "topo-";

/// Names a lab's table: after its mark, with what nft can't read replaced and told apart by a hash.
fn table_name(mark: &str) -> String {
    let plain = mark.trim_start_matches("topo:").replace(':', "-");
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if plain.chars().all(fits) {
        return format!("{TABLE_PREFIX}{plain}");
    }
    let readable = plain.replace(|c| !fits(c), "_");
    format!("{TABLE_PREFIX}{readable}-{}", name::short_hash(plain.as_bytes()))
}

/// Tells whether a table is a lab's, of whatever state directory.
pub fn is_a_labs(table: &nft::Table) -> bool {
    table.name.starts_with(TABLE_PREFIX)
        && table.comment.as_deref().is_some_and(|comment| lab_of_mark(comment).is_some())
}

/// Finds the lab whose table a lab's steps use, and its mark: its own, or for an endpoint that of its network.
fn owner_of(lab: &Lab) -> Result<(String, String)> {
    let (mut owner, mut mark) = (lab.name().to_string(), lab.mark().to_string());
    let (mut kind, mut parent) = (lab.kind(), lab.parent().map(String::from));
    while kind == LabKind::Endpoint {
        let Some(above) = parent else { break };
        let record = lab.state().find(&above)?.record()?;
        (owner, mark, kind, parent) = (above, record.marks.mark, record.kind, record.parent);
    }
    Ok((owner, mark))
}

/// Adds a lab's table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AddTable {
    table: LabTable,
}

impl StepSort for AddTable {
    const WORD: &'static str = "nft-table";
}

impl Step for AddTable {
    fn doing(&self) -> String {
        format!("add table `{}`{}", self.table.name, in_netns(&self.table.netns))
    }

    fn like(&self) -> Vec<String> {
        vec![format!("{}nft add table inet {}", enter(&self.table.netns), self.table.name)]
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            makes_table: Some(self.table.reference()),
            lives_in: vec![&self.table.netns],
            is_atomic: true,
            ..Footprint::default()
        }
    }

    fn plan(&self, model: &mut Model) -> Result<()> {
        model.living_netns(&self.table.netns)?;
        model.add_table(self.table.reference());
        Ok(())
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let netns = kernel.netns(&self.table.netns)?;
            let mut batch = Batch::new();
            batch.create_table(FAMILY, &self.table.name, Some(&self.table.mark));
            batch.commit(&netns)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        no_nftables(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(netns) = self.table.find(kernel)? else { return self.table.leave_changed(kernel) };
        let mut batch = Batch::new();
        batch.delete_table(FAMILY, &self.table.name);
        batch.commit(&netns)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        self.table.find(kernel).map(|netns| netns.is_some())
    }
}

/// Adds rules to a lab's table, and the chains and maps that they need.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AddRules {
    pub table: LabTable,
    /// What they do, for messages: "masquerade `10.0.0.0/24`".
    pub what: String,
    /// The chains that must be there; one that is stays as it is.
    pub chains: Vec<Chain>,
    /// The sets that must be there; one that is stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Set>,
    /// The rules, each with its chain.
    pub rules: Vec<(String, Rule)>,
    /// What tells them from the rules of other steps: their comment.
    pub tag: String,
}

impl AddRules {
    /// Makes the step, with a tag of its own.
    pub(in crate::prim) fn new(lab: &mut Lab, table: LabTable, what: String) -> AddRules {
        let tag = tag(lab);
        AddRules { table, what, chains: Vec::new(), sets: Vec::new(), rules: Vec::new(), tag }
    }
}

/// Makes a comment that no other step's rules or elements have.
pub(in crate::prim) fn tag(lab: &mut Lab) -> String {
    let no = lab.model().next_no();
    format!("{}:{no}", lab.mark())
}

impl StepSort for AddRules {
    const WORD: &'static str = "nft-rules";
}

impl Step for AddRules {
    fn doing(&self) -> String {
        format!("{}{}", self.what, in_netns(&self.table.netns))
    }

    fn like(&self) -> Vec<String> {
        let (enter, table) = (enter(&self.table.netns), &self.table.name);
        let chains = self.chains.iter().map(|chain| match &chain.base {
            Some(base) => format!(
                "{enter}nft add chain inet {table} {} '{{ type {} hook {} priority {}; }}'",
                chain.name, base.kind, base.hook, base.priority
            ),
            None => format!("{enter}nft add chain inet {table} {}", chain.name),
        });
        let sets = self.sets.iter().map(|set| format!("{enter}nft add {set}"));
        let rules = self.rules.iter().map(|(chain, rule)| format!("{enter}nft add rule inet {table} {chain} {rule}"));
        chains.chain(sets).chain(rules).collect()
    }

    fn footprint(&self) -> Footprint<'_> {
        Footprint {
            lives_in: vec![&self.table.netns],
            lives_in_table: Some(self.table.reference()),
            ..Footprint::default()
        }
    }

    fn ops(&self, _kernel: &mut Kernel) -> net::Result<Vec<Op<'_>>> {
        Op::alone(|kernel| {
            let netns = kernel.netns(&self.table.netns)?;
            let mut batch = Batch::new();
            for chain in &self.chains {
                // Its policy may be another step's.
                batch.ensure_chain(chain);
            }
            for set in &self.sets {
                batch.add_set(set);
            }
            for (chain, rule) in &self.rules {
                let rule = Rule { comment: Some(self.tag.clone()), ..rule.clone() };
                batch.add_rule(FAMILY, &self.table.name, chain, &rule, At::End);
            }
            batch.commit(&netns)
        })
    }

    fn advice(&self, refusal: &net::Error) -> Option<String> {
        advice(refusal)
    }

    fn undo(&self, kernel: &mut Kernel) -> net::Result<()> {
        let Some(netns) = self.table.find(kernel)? else { return Ok(()) };
        let mut batch = Batch::new();
        let rules = nft::list_comments(&netns, FAMILY, &self.table.name)?;
        for (at, _) in rules.into_iter().filter(|(_, comment)| *comment == self.tag) {
            batch.delete_rule(FAMILY, &self.table.name, &at.chain, at.handle);
        }
        batch.commit(&netns)
    }

    fn is_held(&self, kernel: &mut Kernel, _lab: Outcome<'_>) -> net::Result<bool> {
        if self.table.find(kernel)?.is_none() {
            return Ok(false);
        }
        let comments = kernel.nft_comments(&self.table.netns, FAMILY, &self.table.name)?;
        Ok(comments.get(&self.tag).copied().unwrap_or_default() == self.rules.len())
    }
}

/// Says what to do where the kernel has no nf_tables, or no room for a chain.
pub(in crate::prim) fn advice(refusal: &net::Error) -> Option<String> {
    match refusal.errno() {
        // MAX_HOOK_COUNT (net/netfilter/core.c).
        libc::E2BIG => Some(
            "a netns has room for 1024 base chains at a hook, and each lab or network that forwards or publishes ports needs one at each; \
             `nft list chains` shows whose they are"
                .into(),
        ),
        _ => no_nftables(refusal),
    }
}

/// Says what to do where the kernel has no nf_tables.
pub(super) fn no_nftables(refusal: &net::Error) -> Option<String> {
    refusal
        .is_unsupported()
        .then(|| "the kernel needs CONFIG_NF_TABLES and CONFIG_NFT_NAT; `topo doctor` says what it has".into())
}

/// Names a namespace at the end of a message; the host goes without saying.
pub(in crate::prim) fn in_netns(netns: &NetnsRef) -> String {
    if netns.no == 0 { String::new() } else { format!(" in netns `{}`", netns.name) }
}

/// Returns what a command begins with that runs in a namespace.
pub(in crate::prim) fn enter(netns: &NetnsRef) -> String {
    use crate::state::NetnsAt;
    match &netns.at {
        NetnsAt::Host => String::new(),
        NetnsAt::Named | NetnsAt::NamedAs(_) => format!("ip netns exec {} ", netns.name),
        NetnsAt::Path(path, _) => format!("nsenter --net={} ", path.display()),
        NetnsAt::Process(process, _) => format!("nsenter -t {} -n ", process.pid),
    }
}

/// Returns the kernel's name of a device that a script names, which need not be there.
pub(in crate::prim) fn dev_name(
    lab: &mut Lab,
    netns: &NetnsRef,
    dev: &crate::prim::value::units::DevOrName,
) -> Result<String> {
    use crate::prim::value::units::DevOrName;
    match dev {
        DevOrName::Name(text) => {
            name::check("device", text)?;
            Ok(name::kernel_name(text))
        }
        DevOrName::Dev(dev) if dev.netns.0.no != netns.no => {
            Err(Error::new(Kind::Invalid, format!("use {}", dev.shown()))
                .because(format!("it is not in netns `{}`", netns.name)))
        }
        DevOrName::Dev(dev) => {
            let entry = dev.find(lab)?;
            Ok(name::kernel_name(entry.as_ref().map_or(&dev.name, |entry| &entry.dev.name)))
        }
    }
}
