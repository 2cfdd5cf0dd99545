//! What the kernel has: tables, chains, rules, sets and their elements.

use netlink_packet_core::{DefaultNla, NLA_TYPE_MASK, Nla, NlasIterator, Parseable};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    SetElementList, SetElementMessage, SetMessage, TableAttribute, TableFlags, TableMessage,
};
use serde::{Deserialize, Serialize};

use super::expr::Expr;
use super::set::{self, Element, Set};
use super::{Base, Chain, ChainKind, Family, Hook, Policy, Table, decode, wrong_comment};
use crate::net::netlink::nfnl::{self, NetfilterThing};
use crate::net::netlink::{self, Netlink};
use crate::net::{Error, Netns, Result};

/// All that nf_tables has in a namespace, of all owners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// The tables.
    pub tables: Vec<Table>,
    /// Their chains.
    pub chains: Vec<Chain>,
    /// The rules of these, in order.
    pub rules: Vec<ListedRule>,
    /// Sets and maps with their elements.
    pub sets: Vec<SetWithElements>,
}

/// Where a rule is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The number that tells it from all others of its table.
    pub handle: u64,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRule {
    /// Where it is.
    #[serde(flatten)]
    pub at: RuleRef,
    /// What it says, much as `nft` writes it, without its comment and its counter's numbers. An expression that is not
    /// known here is its name in brackets.
    pub text: String,
    /// Its comment, `nft`'s or `iptables`'s.
    pub comment: Option<String>,
    /// What it counted, if it does.
    pub counter: Option<Counter>,
}

/// What a rule counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// How many packets.
    pub packets: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// A set or a map and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetWithElements {
    /// The set.
    #[serde(flatten)]
    pub set: Set,
    /// Its elements, in no order of any meaning.
    pub elements: Vec<Element>,
}

/// Lists everything, one table after the other.
///
/// Like `nft list ruleset`. EOPNOTSUPP on a kernel without nf_tables, EPERM without CAP_NET_ADMIN.
pub fn list(netns: &Netns) -> Result<Ruleset> {
    let nfnl = nfnl::open(netns)?;
    let rules = rules(&nfnl, None, Vec::new())?;
    let sets = add_elements(&nfnl, all_sets(&nfnl)?.into_iter())?;
    Ok(Ruleset {
        tables: tables(&nfnl)?,
        chains: chains(&nfnl)?,
        rules: rules.into_iter().map(|(rule, _)| rule).collect(),
        sets,
    })
}

/// Lists the tables of all families.
///
/// Like `nft list tables`. Fails as `list`.
pub fn list_tables(netns: &Netns) -> Result<Vec<Table>> {
    tables(&nfnl::open(netns)?)
}

/// Lists the chains of all tables.
///
/// Like `nft list chains`. Fails as `list`.
pub fn list_chains(netns: &Netns) -> Result<Vec<Chain>> {
    chains(&nfnl::open(netns)?)
}

/// Lists the rules of one table, by chain and in order; none if there is no such table.
///
/// Like `nft list table`. Fails as `list`.
pub fn list_rules(netns: &Netns, family: Family, table: &str) -> Result<Vec<ListedRule>> {
    let of_table = vec![RuleAttribute::Table(table.to_string())];
    let rules = rules(&nfnl::open(netns)?, Some(family), of_table)?;
    Ok(rules.into_iter().map(|(rule, _)| rule).collect())
}

/// Lists the rules of one table that have a comment of `nft`'s, each with that, by chain and in order. What they say is not read, which
/// costs most.
///
/// Like `nft -a list table`. Fails as `list`.
pub fn list_comments(netns: &Netns, family: Family, table: &str) -> Result<Vec<(RuleRef, String)>> {
    let of_table = vec![RuleAttribute::Table(table.to_string())];
    let answers = answers(&nfnl::open(netns)?, Some(family), of_table)?;
    let heads = answers.iter().map(|answer| read_head(answer.family.into(), &answer.attributes));
    Ok(heads.filter_map(|head| Some((head.at, head.comment?))).collect())
}

/// Lists the sets and maps of all tables, without what is in them.
///
/// Like `nft -t list sets` and `nft -t list maps`. Fails as `list`.
pub fn list_sets(netns: &Netns) -> Result<Vec<Set>> {
    all_sets(&nfnl::open(netns)?)
}

/// Lists what is in a set or a map. ENOENT if there is none of that name.
///
/// Like `nft list set` and `nft list map`. Fails as `list`.
pub fn elements(netns: &Netns, family: Family, table: &str, name: &str) -> Result<Vec<Element>> {
    let nfnl = nfnl::open(netns)?;
    let wanted = |set: &Set| set.family == family && set.table == table && set.name == name;
    match all_sets(&nfnl)?.into_iter().find(wanted) {
        Some(set) => elements_of(&nfnl, &set),
        None => Err(Error::new(listing_elements(family, table, name), libc::ENOENT)),
    }
}

/// Lists the sets and maps of the tables that are wanted, with what is in them.
///
/// Like `nft list table`, of each. Fails as `list`.
pub fn sets_of(netns: &Netns, is_wanted: impl Fn(&Table) -> bool) -> Result<Vec<SetWithElements>> {
    let nfnl = nfnl::open(netns)?;
    let tables: Vec<Table> = tables(&nfnl)?.into_iter().filter(is_wanted).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let is_in = |set: &Set| tables.iter().any(|table| (table.family, &table.name) == (set.family, &set.table));
    add_elements(&nfnl, all_sets(&nfnl)?.into_iter().filter(is_in))
}

/// Lists what is in sets and maps that are known; one that was deleted meanwhile is left out.
///
/// Like `nft list set`, of each. Fails as `list`.
pub fn with_elements<'a>(netns: &Netns, sets: impl Iterator<Item = &'a Set>) -> Result<Vec<SetWithElements>> {
    add_elements(&nfnl::open(netns)?, sets.cloned())
}

fn add_elements(nfnl: &Netlink, sets: impl Iterator<Item = Set>) -> Result<Vec<SetWithElements>> {
    let mut listed = Vec::new();
    for set in sets {
        match elements_of(nfnl, &set) {
            Ok(elements) => listed.push(SetWithElements { set, elements }),
            // Deleted meanwhile.
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listed)
}

/// Finds the rules, in the tables of anybody, whose comment is one of those.
pub fn rules_with_comment(netns: &Netns, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<RuleRef>> {
    let rules = commented_rules(netns)?.into_iter();
    Ok(rules.filter(|(_, comment)| is_wanted(comment)).map(|(at, _)| at).collect())
}

/// Lists the rules of all tables that have a comment, each with that. What a rule says is read only where `iptables` may have its comment
/// in it.
///
/// Like `nft -a list ruleset`. Fails as `list`.
pub fn commented_rules(netns: &Netns) -> Result<Vec<(RuleRef, String)>> {
    let answers = answers(&nfnl::open(netns)?, None, Vec::new())?;
    let rules = answers.iter().map(|answer| read_head(answer.family.into(), &answer.attributes));
    let commented = |mut head: RuleHead<'_>| {
        let comment = head.comment.take().or_else(|| decode::xt_comment(&head.exprs()))?;
        Some((head.at, comment))
    };
    Ok(rules.filter_map(commented).collect())
}

pub(super) fn tables(nfnl: &Netlink) -> Result<Vec<Table>> {
    let get = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    dump(nfnl, "list tables", get, read_table)
}

pub(super) fn chains(nfnl: &Netlink) -> Result<Vec<Chain>> {
    let get = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    dump(nfnl, "list chains", get, read_chain)
}

/// Lists the rules of a family, or of all; of the table and the chain that the attributes name, or of all. Each comes with
/// its own form too.
pub(super) fn rules(
    nfnl: &Netlink,
    family: Option<Family>,
    attributes: Vec<RuleAttribute>,
) -> Result<Vec<(ListedRule, Vec<Expr>)>> {
    let answers = answers(nfnl, family, attributes)?;
    Ok(answers.iter().map(|answer| read_rule(answer.family.into(), &answer.attributes)).collect())
}

fn answers(nfnl: &Netlink, family: Option<Family>, attributes: Vec<RuleAttribute>) -> Result<Vec<NetfilterThing>> {
    let family = family.map_or(NetfilterProtoFamily::Unspec, NetfilterProtoFamily::from);
    let get = NfTablesMessage::GetRule(RuleMessage { attributes });
    nfnl::dump(nfnl, "list rules", nfnl::message(family, get))
}

fn all_sets(nfnl: &Netlink) -> Result<Vec<Set>> {
    let get = NfTablesMessage::GetSet(SetMessage { attributes: Vec::new() });
    dump(nfnl, "list sets", get, set::read)
}

fn elements_of(nfnl: &Netlink, set: &Set) -> Result<Vec<Element>> {
    let attributes = vec![SetElementList::Table(set.table.clone()), SetElementList::Set(set.name.clone())];
    let get = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let doing = listing_elements(set.family, &set.table, &set.name);
    let answers = nfnl::dump(nfnl, &doing, nfnl::message(set.family, get))?;
    Ok(answers.iter().flat_map(|answer| set::read_elements(set, &answer.attributes)).collect())
}

fn listing_elements(family: Family, table: &str, name: &str) -> String {
    format!("list elements of `{name}` of table `{family} {table}`")
}

/// Asks for something of all families.
fn dump<M: Parseable<[u8]>, T>(
    nfnl: &Netlink,
    doing: &str,
    get: NfTablesMessage,
    read: impl Fn(Family, M) -> T,
) -> Result<Vec<T>> {
    let answers = nfnl::dump(nfnl, doing, nfnl::message(NetfilterProtoFamily::Unspec, get))?;
    let read = |answer: NetfilterThing| match M::parse(&answer.attributes) {
        Ok(message) => Ok(read(answer.family.into(), message)),
        Err(error) => Err(Error::new(doing, libc::EBADMSG).saying(error.to_string())),
    };
    answers.into_iter().map(read).collect()
}

fn read_table(family: Family, message: TableMessage) -> Table {
    let mut table = Table { family, name: String::new(), comment: None, dormant: false, owner: None };
    for attribute in message.attributes {
        match attribute {
            TableAttribute::Name(name) => table.name = name,
            TableAttribute::Flags(flags) => table.dormant = flags.contains(TableFlags::Dormant),
            TableAttribute::UserData(bytes) => table.comment = comment_of(&bytes),
            TableAttribute::Owner(port) => table.owner = Some(port),
            _ => {}
        }
    }
    table
}

fn read_chain(family: Family, message: ChainMessage) -> Chain {
    let mut chain = Chain { family, table: String::new(), name: String::new(), base: None };
    let (mut hook, mut policy, mut kind) = (None, Policy::Accept, ChainKind::Filter);
    for attribute in message.attributes {
        match attribute {
            ChainAttribute::Table(table) => chain.table = table,
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Hook(attributes) => hook = Some(read_hook(family, attributes)),
            ChainAttribute::Policy(0) => policy = Policy::Drop,
            ChainAttribute::Type(word) => {
                kind = match word.as_str() {
                    "nat" => ChainKind::Nat,
                    "route" => ChainKind::Route,
                    _ => ChainKind::Filter,
                }
            }
            _ => {}
        }
    }
    chain.base = hook.map(|(hook, priority)| Base { kind, hook, priority, policy });
    chain
}

fn read_hook(family: Family, attributes: Vec<HookAttribute>) -> (Hook, i32) {
    let (mut hook, mut priority) = (Hook::Other(u32::MAX), 0);
    for attribute in attributes {
        match attribute {
            HookAttribute::Number(number) => hook = Hook::of(family, <HookNumber as Into<u32>>::into(number)),
            HookAttribute::Priority(unsigned) => priority = unsigned as i32,
            _ => {}
        }
    }
    (hook, priority)
}

/// A rule without what it says.
struct RuleHead<'a> {
    at: RuleRef,
    comment: Option<String>,
    exprs: &'a [u8],
}

impl RuleHead<'_> {
    /// Reads the list of expressions, not by the packet crate, for the reason that `read_elements` has; one that makes no sense is left
    /// out.
    fn exprs(&self) -> Vec<Expr> {
        NlasIterator::new(self.exprs).flatten().flat_map(|expr| Expr::parse(&expr)).collect()
    }
}

fn read_head(family: Family, message: &[u8]) -> RuleHead<'_> {
    /// `enum nft_rule_attributes`.
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    const USERDATA: u16 = 7;
    let at = RuleRef { family, table: String::new(), chain: String::new(), handle: 0 };
    let mut head = RuleHead { at, comment: None, exprs: &[] };
    for (kind, value) in netlink::attributes(message) {
        match kind {
            TABLE => head.at.table = decode::name(value),
            CHAIN => head.at.chain = decode::name(value),
            HANDLE => head.at.handle = value.first_chunk().map_or(0, |handle| u64::from_be_bytes(*handle)),
            USERDATA => head.comment = comment_of(value),
            EXPRESSIONS => head.exprs = value,
            _ => {}
        }
    }
    head
}

/// Reads a rule.
fn read_rule(family: Family, message: &[u8]) -> (ListedRule, Vec<Expr>) {
    let head = read_head(family, message);
    let exprs = head.exprs();
    let comment = head.comment.or_else(|| decode::xt_comment(&exprs));
    let (text, counter) = decode::rule(family, &exprs);
    (ListedRule { at: head.at, text, comment, counter }, exprs)
}

/// Writes a comment as `nft` stores it beside a table, a rule or an element: a type of 0, the length, the text, a NUL
/// (libnftnl's udata.h). Fails with a text that says what is wrong with it.
pub(super) fn comment_data(comment: &str, bytes_max: usize) -> std::result::Result<Vec<u8>, String> {
    if let Some(wrong) = wrong_comment(comment, bytes_max) {
        return Err(wrong);
    }
    let length = u8::try_from(comment.len() + 1).map_err(|error| error.to_string())?;
    Ok([&[0, length], comment.as_bytes(), &[0]].concat())
}

/// Finds the comment in what `nft` stores.
pub(super) fn comment_of(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(decode::name(value)).filter(|comment| !comment.is_empty());
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

/// Returns the number in an attribute that the packet crate left as bytes.
pub(super) fn number(attributes: &[DefaultNla], kind: u16) -> Option<u32> {
    bytes(attributes, kind)?.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// Returns the value of an attribute that the packet crate left as bytes.
pub(super) fn bytes(attributes: &[DefaultNla], kind: u16) -> Option<Vec<u8>> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind)?;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(value)
}
