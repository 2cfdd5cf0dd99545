//! One transaction of nf_tables: all of it, or nothing (nf_tables_commit(), nf_tables_abort()).

use netlink_packet_core::{NLA_F_NESTED, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, InetHookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
    TableAttribute, TableMessage,
};

use super::expr::Expr;
use super::rule::Rule;
use super::set::{self, Element, Set};
use super::{COMMENT_BYTES_MAX, Chain, Family, Policy, encode, list, wrong_name};
use crate::net::netlink::nfnl;
use crate::net::netlink::{self, Netlink, Refusal};
use crate::net::{Error, Netns, Result, fault};

/// How many bytes of elements stand in one message: an attribute counts its bytes in 16 bits.
const ELEMENT_BYTES_MAX: usize = 60_000;
/// What stands before the elements in their attribute: `struct nlattr`.
const LIST_HEADER_BYTES: usize = 4;

/// NFT_MSG_NEWSETELEM and NFT_MSG_DELSETELEM of `enum nf_tables_msg_types`.
const NEW_ELEMENT: u8 = 12;
const DELETE_ELEMENT: u8 = 14;

/// Changes of nf_tables that are made together. Nothing happens before `commit`, which also tells what was wrong with
/// the first wrong call: a name or comment that is too long, a rule that makes no sense.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<Message>,
    /// The sets that it makes; each one's place is its number in the transaction.
    sets: Vec<(Family, String, String)>,
    wrong: Option<Error>,
}

/// Where in its chain a rule comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Behind all others. Like `nft add rule`.
    End,
    /// Before the rule with this handle. ENOENT if there is none. Like `nft insert rule … handle`.
    Before(u64),
}

#[derive(Debug)]
struct Message {
    doing: String,
    bytes: Vec<u8>,
    elements: Option<Elements>,
}

/// The elements in a message, so that a refusal can name the one that it is about.
#[derive(Debug)]
struct Elements {
    /// Before the element: "add element".
    verb: &'static str,
    /// Behind it: "to map `m` of table `inet t`".
    place: String,
    elements: Vec<Element>,
    /// Where in the message each one is.
    offsets: Vec<usize>,
}

impl Batch {
    /// Returns a batch that changes nothing yet.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a table; if it is there, that is as good, and it keeps the comment that it has.
    ///
    /// Like `nft add table`.
    pub fn add_table(&mut self, family: Family, name: &str, comment: Option<&str>) -> &mut Batch {
        self.table(family, name, comment, 0)
    }

    /// Adds a table that must not be there: EEXIST.
    ///
    /// Like `nft create table`.
    pub fn create_table(&mut self, family: Family, name: &str, comment: Option<&str>) -> &mut Batch {
        self.table(family, name, comment, NLM_F_EXCL)
    }

    fn table(&mut self, family: Family, name: &str, comment: Option<&str>, flags: u16) -> &mut Batch {
        let doing = format!("add table `{family} {name}`");
        let mut attributes = vec![TableAttribute::Name(name.to_string())];
        match comment.map(|text| list::comment_data(text, COMMENT_BYTES_MAX)).transpose() {
            Ok(data) => attributes.extend(data.map(TableAttribute::UserData)),
            Err(wrong) => return self.refuse(doing, wrong),
        }
        if let Some(wrong) = wrong_name("table", name) {
            return self.refuse(doing, wrong);
        }
        self.push(doing, family, NfTablesMessage::NewTable(TableMessage { attributes }), NLM_F_CREATE | flags)
    }

    /// Deletes a table with all that is in it. ENOENT if it is not there, EPERM if it is another process's own.
    ///
    /// Like `nft delete table`.
    pub fn delete_table(&mut self, family: Family, name: &str) -> &mut Batch {
        let attributes = vec![TableAttribute::Name(name.to_string())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        self.push(format!("delete table `{family} {name}`"), family, message, 0)
    }

    /// Adds a chain; if one is there that the kernel calls at the same place, that is as good. EOPNOTSUPP if it calls it at
    /// another, or for a kind that the hook can't have; ENOENT without its table.
    ///
    /// Like `nft add chain` with a policy, which one that is there then has.
    pub fn add_chain(&mut self, chain: &Chain) -> &mut Batch {
        self.chain(chain, true)
    }

    /// Adds a chain, with the policy accept; one that is there keeps its own. Errors as `add_chain`.
    ///
    /// Like `nft add chain` without a policy.
    pub fn ensure_chain(&mut self, chain: &Chain) -> &mut Batch {
        self.chain(chain, false)
    }

    fn chain(&mut self, chain: &Chain, with_policy: bool) -> &mut Batch {
        let doing = format!("add chain `{}` of table `{} {}`", chain.name, chain.family, chain.table);
        if let Some(wrong) = wrong_name("chain", &chain.name) {
            return self.refuse(doing, wrong);
        }
        let mut attributes = chain_attributes(&chain.table, &chain.name);
        if let Some(base) = &chain.base {
            attributes.push(ChainAttribute::Hook(vec![
                HookAttribute::Number(InetHookNumber::from(base.hook.number()).into()),
                // A signed number, in an attribute for unsigned ones.
                HookAttribute::Priority(base.priority as u32),
            ]));
            attributes.push(ChainAttribute::Type(base.kind.word().to_string()));
            if with_policy {
                attributes.push(ChainAttribute::Policy(match base.policy {
                    Policy::Drop => 0,
                    Policy::Accept => 1,
                }));
            }
        }
        self.push(doing, chain.family, NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE)
    }

    /// Adds a rule. ENOENT without its table or chain, or a chain or map that it names; EOPNOTSUPP for what can't be done
    /// or looked at where the chain is called.
    ///
    /// Like `nft add rule`.
    pub fn add_rule(&mut self, family: Family, table: &str, chain: &str, rule: &Rule, at: At) -> &mut Batch {
        let number = |set: &str| self.set_number(family, table, set);
        match encode::rule(family, rule, &number) {
            Ok(exprs) => self.add_exprs((family, table, chain), exprs, rule, at),
            Err(wrong) => self.refuse(adding_rule(family, table, chain, rule), wrong),
        }
    }

    /// Adds a rule in the kernel's own form; `rule` is what it means, and has its comment.
    pub(super) fn add_exprs(
        &mut self,
        (family, table, chain): (Family, &str, &str),
        exprs: Vec<Expr>,
        rule: &Rule,
        at: At,
    ) -> &mut Batch {
        let doing = adding_rule(family, table, chain, rule);
        let mut attributes = rule_attributes(table, chain);
        attributes.push(RuleAttribute::Expressions(exprs));
        match rule.comment.as_deref().map(|text| list::comment_data(text, COMMENT_BYTES_MAX)).transpose() {
            Ok(data) => attributes.extend(data.map(RuleAttribute::UserData)),
            Err(wrong) => return self.refuse(doing, wrong),
        }
        if let At::Before(handle) = at {
            attributes.push(RuleAttribute::Position(handle));
        }
        let flags = match at {
            At::Before(_) => NLM_F_CREATE,
            At::End => NLM_F_CREATE | NLM_F_APPEND,
        };
        self.push(doing, family, NfTablesMessage::NewRule(RuleMessage { attributes }), flags)
    }

    /// Deletes the rule that has the handle. ENOENT if there is none.
    ///
    /// Like `nft delete rule … handle`.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) -> &mut Batch {
        let mut attributes = rule_attributes(table, chain);
        attributes.push(RuleAttribute::Handle(handle));
        let doing = format!("delete rule {handle} of chain `{chain}` of table `{family} {table}`");
        self.push(doing, family, NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0)
    }

    /// Adds a set or a map; if the same is there, that is as good. EEXIST if it is there and another.
    ///
    /// Like `nft add set` and `nft add map`.
    pub fn add_set(&mut self, set: &Set) -> &mut Batch {
        let doing = format!("add {} `{}` of table `{} {}`", word(set.data.is_some()), set.name, set.family, set.table);
        if let Some(wrong) = wrong_name(word(set.data.is_some()), &set.name) {
            return self.refuse(doing, wrong);
        }
        self.sets.push((set.family, set.table.clone(), set.name.clone()));
        match set::message(set, self.sets.len() as u32) {
            Ok(message) => self.push(doing, set.family, NfTablesMessage::NewSet(message), NLM_F_CREATE),
            Err(wrong) => self.refuse(doing, wrong),
        }
    }

    /// Adds elements to a set or a map. ENOENT without it. A key that is there is EEXIST with `exclusive`; without, only if
    /// its data are others. The error says which element it was.
    ///
    /// Like `nft create element` and `nft add element`.
    pub fn add_elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
        exclusive: bool,
    ) -> &mut Batch {
        let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { 0 };
        self.elements("add", (family, table, set), elements, NEW_ELEMENT, flags)
    }

    /// Deletes elements of a set or a map, by their keys. ENOENT if one is not there; the error says which.
    ///
    /// Like `nft delete element`.
    pub fn delete_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) -> &mut Batch {
        let keys: Vec<Element> =
            elements.iter().map(|element| Element { data: None, comment: None, ..element.clone() }).collect();
        self.elements("delete", (family, table, set), &keys, DELETE_ELEMENT, 0)
    }

    fn elements(
        &mut self,
        verb: &'static str,
        (family, table, set): (Family, &str, &str),
        elements: &[Element],
        kind: u8,
        flags: u16,
    ) -> &mut Batch {
        /// `enum nft_set_elem_list_attributes`.
        const TABLE: u16 = 1;
        const SET: u16 = 2;
        const ELEMENTS: u16 = 3 | NLA_F_NESTED;
        const SET_ID: u16 = 4;
        let verb_of_one = if verb == "add" { "add element" } else { "delete element" };
        let place = format!("{} `{set}` of table `{family} {table}`", if verb == "add" { "to" } else { "of" });
        let mut head = Vec::new();
        netlink::put(&mut head, TABLE, |bytes| bytes.extend(text(table)));
        netlink::put(&mut head, SET, |bytes| bytes.extend(text(set)));
        if let Some(number) = self.set_number(family, table, set) {
            netlink::put(&mut head, SET_ID, |bytes| bytes.extend(number.to_be_bytes()));
        }
        let mut rest = elements;
        while !rest.is_empty() {
            let (mut list, mut offsets, mut wrong) = (Vec::new(), Vec::new(), None);
            for element in rest {
                let start = list.len();
                wrong = set::put_element(&mut list, element).err();
                if wrong.is_some() || list.len() > ELEMENT_BYTES_MAX && start > 0 {
                    list.truncate(start);
                    break;
                }
                offsets.push(nfnl::HEADER_BYTES + head.len() + LIST_HEADER_BYTES + start);
            }
            let (these, others) = rest.split_at(offsets.len());
            if let Some(wrong) = wrong {
                return match others.first() {
                    Some(element) => self.refuse(format!("{verb_of_one} `{element}` {place}"), wrong),
                    None => self,
                };
            }
            rest = others;
            let mut attributes = head.clone();
            netlink::put(&mut attributes, ELEMENTS, |bytes| bytes.extend(list));
            let doing = match these {
                [one] => format!("{verb_of_one} `{one}` {place}"),
                all => format!("{verb} {} elements {place}", all.len()),
            };
            let bytes = nfnl::frame_of(family.into(), kind, flags, &attributes);
            let elements = Elements { verb: verb_of_one, place: place.clone(), elements: these.to_vec(), offsets };
            self.messages.push(Message { doing, bytes, elements: Some(elements) });
        }
        self
    }

    /// Makes all the changes, or none.
    ///
    /// A batch that doesn't fit into one datagram is split into several transactions, each of which is made whole or not
    /// at all: beyond some 400 kB, and only without CAP_NET_ADMIN in the first user namespace, where net.core.wmem_max
    /// limits the send buffer (netlink(7), socket(7)). A map of 1000 ports takes 100 kB, 1000 rules 450 kB.
    ///
    /// Like `nft -f`. The error says which change was refused. EPERM without CAP_NET_ADMIN, EOPNOTSUPP on a kernel
    /// without nf_tables.
    pub fn commit(self, netns: &Netns) -> Result<()> {
        self.commit_within(netns, Netlink::make_room)
    }

    /// Makes the changes; `room` says how many bytes one transaction may have, of those wanted.
    pub(super) fn commit_within(
        self,
        netns: &Netns,
        room: impl FnOnce(&Netlink, usize) -> Result<usize>,
    ) -> Result<()> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let doing = match self.messages.as_slice() {
            [] => return Ok(()),
            [one] => one.doing.clone(),
            [first, ..] => format!("{}, the first of {} changes", first.doing, self.messages.len()),
        };
        fault::point(&doing)?;
        let nfnl = nfnl::open(netns)?;
        let room = room(&nfnl, self.messages.iter().map(|message| message.bytes.len()).sum())?;
        let mut rest = self.messages.as_slice();
        while !rest.is_empty() {
            let (part, others) = rest.split_at(fitting(rest, room));
            rest = others;
            let bytes: Vec<&[u8]> = part.iter().map(|message| message.bytes.as_slice()).collect();
            nfnl::transact(&nfnl, &bytes).map_err(|refusal| told(refusal, part, &doing))?;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, doing: String, family: Family, message: NfTablesMessage, flags: u16) -> &mut Batch {
        let bytes = nfnl::frame(nfnl::message(family, message), flags);
        self.messages.push(Message { doing, bytes, elements: None });
        self
    }

    fn refuse(&mut self, doing: String, wrong: String) -> &mut Batch {
        self.wrong.get_or_insert_with(|| Error::new(doing, libc::EINVAL).saying(wrong));
        self
    }

    /// Returns the number of a set that this batch makes.
    fn set_number(&self, family: Family, table: &str, name: &str) -> Option<u32> {
        let of = |set: &(Family, String, String)| set.0 == family && set.1 == table && set.2 == name;
        self.sets.iter().rposition(of).map(|at| at as u32 + 1)
    }
}

fn word(has_data: bool) -> &'static str {
    if has_data { "map" } else { "set" }
}

pub(super) fn chain_attributes(table: &str, name: &str) -> Vec<ChainAttribute> {
    vec![ChainAttribute::Table(table.to_string()), ChainAttribute::Name(name.to_string())]
}

fn rule_attributes(table: &str, chain: &str) -> Vec<RuleAttribute> {
    vec![RuleAttribute::Table(table.to_string()), RuleAttribute::Chain(chain.to_string())]
}

fn adding_rule(family: Family, table: &str, chain: &str, rule: &Rule) -> String {
    format!("add rule `{rule}` to chain `{chain}` of table `{family} {table}`")
}

/// Returns a text as attributes have it: with a NUL at its end.
fn text(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().chain([0])
}

/// Returns how many of the messages fit into one datagram; one that fits into none is for the kernel to refuse.
fn fitting(messages: &[Message], room: usize) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Message| {
        bytes += message.bytes.len();
        bytes <= room
    };
    messages.iter().take_while(fits).count().max(1)
}

/// Says of a refusal what was refused.
fn told((at, refusal): (Option<usize>, Refusal), part: &[Message], doing: &str) -> Error {
    let Some(message) = at.and_then(|at| part.get(at)) else {
        return refusal.error.while_doing(doing);
    };
    let one = message.elements.as_ref().and_then(|elements| elements.doing(refusal.offset?));
    refusal.error.while_doing(one.unwrap_or_else(|| message.doing.clone()))
}

impl Elements {
    /// Says of the element at an offset what was being done with it.
    fn doing(&self, offset: usize) -> Option<String> {
        let at = self.offsets.binary_search(&offset).ok()?;
        Some(format!("{} `{}` {}", self.verb, self.elements.get(at)?, self.place))
    }
}
