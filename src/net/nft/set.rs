//! Sets and maps: what their keys and data are made of, and their elements.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_core::{NLA_F_NESTED, NlasIterator, Parseable};
use netlink_packet_netfilter::nftables::{DataAttribute, SetAttribute, SetFlags, SetMessage};
use serde::{Deserialize, Serialize};

use super::encode::{address_bytes, dev_bytes};
use super::{ELEMENT_COMMENT_BYTES_MAX, Family, L4Proto, decode, list, wrong_dev};
use crate::net::netlink;

/// A set, or, if it has data, a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// What a key is made of.
    pub key: Vec<Field>,
    /// What the data are made of, for a map.
    pub data: Option<Vec<Field>>,
}

/// One part of a key or of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// A transport protocol. Like `inet_proto`.
    Proto,
    /// An IPv4 address. Like `ipv4_addr`.
    Ipv4,
    /// An IPv6 address. Like `ipv6_addr`.
    Ipv6,
    /// A port. Like `inet_service`.
    Port,
    /// The name of a device. Like `ifname`.
    Dev,
    /// Another of nft's types, by its number (`enum datatypes` of nftables' datatype.h).
    Other(u32),
}

/// The value of one part of a key or of data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A transport protocol.
    Proto(L4Proto),
    /// An address.
    Ip(IpAddr),
    /// A port.
    Port(u16),
    /// The name of a device.
    Dev(String),
    /// What this module has no type for, as text; only read, never written.
    Other(String),
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// Its key.
    pub key: Vec<Value>,
    /// What the map has for it.
    pub data: Option<Vec<Value>>,
    /// A note for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Proto(proto) => write!(f, "{proto}"),
            Value::Ip(ip) => write!(f, "{ip}"),
            Value::Port(port) => write!(f, "{port}"),
            Value::Dev(name) => write!(f, "\"{name}\""),
            Value::Other(text) => f.write_str(text),
        }
    }
}

/// As `nft` writes it: `tcp . 8080 comment "web" : 10.0.0.2 . 80`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.key))?;
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{comment}\"")?;
        }
        match &self.data {
            Some(data) => write!(f, " : {}", joined(data)),
            None => Ok(()),
        }
    }
}

/// Writes values as `nft` does.
pub(super) fn joined(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(" . ")
}

/// nft's types are 6 bits each; those of a concatenation stand in one number, the first one highest.
const TYPE_BITS: u32 = 6;

/// NFT_DATA_VERDICT: the data of a map are what to do.
const VERDICT: u32 = 0xffff_ff00;

impl Field {
    fn number(self) -> u32 {
        match self {
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Proto => 12,
            Field::Port => 13,
            Field::Dev => 41,
            Field::Other(number) => number,
        }
    }

    fn of(number: u32) -> Field {
        match number {
            7 => Field::Ipv4,
            8 => Field::Ipv6,
            12 => Field::Proto,
            13 => Field::Port,
            41 => Field::Dev,
            other => Field::Other(other),
        }
    }

    fn length(self) -> Option<usize> {
        match self {
            Field::Ipv4 => Some(4),
            Field::Ipv6 | Field::Dev => Some(16),
            Field::Proto => Some(1),
            Field::Port => Some(2),
            Field::Other(_) => None,
        }
    }

    fn read(self, bytes: &[u8]) -> Option<Value> {
        match self {
            Field::Ipv4 => bytes.first_chunk::<4>().map(|octets| Value::Ip(IpAddr::from(*octets))),
            Field::Ipv6 => bytes.first_chunk::<16>().map(|octets| Value::Ip(IpAddr::from(*octets))),
            Field::Proto => bytes.first().map(|number| Value::Proto(L4Proto::from(*number))),
            Field::Port => bytes.first_chunk().map(|port| Value::Port(u16::from_be_bytes(*port))),
            Field::Dev => Some(Value::Dev(decode::name(bytes))),
            Field::Other(_) => None,
        }
    }
}

/// Splits a number into the types that it stands for.
fn fields(number: u32) -> Vec<Field> {
    if number == VERDICT {
        return vec![Field::Other(number)];
    }
    let parts = (0..32 / TYPE_BITS).rev().map(|at| (number >> (at * TYPE_BITS)) & ((1 << TYPE_BITS) - 1));
    parts.skip_while(|part| *part == 0).map(Field::of).collect()
}

/// Returns the number and the length of a key or of data. Fails with a text.
fn type_of(fields: &[Field]) -> std::result::Result<(u32, u32), String> {
    if fields.is_empty() || fields.len() > (32 / TYPE_BITS) as usize {
        return Err("a key has one to five parts".into());
    }
    let (mut number, mut length) = (0, 0);
    for field in fields {
        let bytes = field.length().ok_or_else(|| format!("the type {} can only be read", field.number()))?;
        number = number << TYPE_BITS | field.number();
        length += if fields.len() == 1 { bytes } else { bytes.next_multiple_of(4) };
    }
    Ok((number, length as u32))
}

/// Writes a set. Fails with a text that says what is wrong with it.
pub(super) fn message(set: &Set, number: u32) -> std::result::Result<SetMessage, String> {
    let (key_type, key_length) = type_of(&set.key)?;
    let mut attributes = vec![
        SetAttribute::Table(set.table.clone()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_length),
        SetAttribute::Id(number),
    ];
    let mut flags = SetFlags::empty();
    if let Some(data) = &set.data {
        let (data_type, data_length) = type_of(data)?;
        attributes.extend([SetAttribute::DataType(data_type), SetAttribute::DataLen(data_length)]);
        flags = SetFlags::Map;
    }
    attributes.push(SetAttribute::Flags(flags));
    attributes.push(SetAttribute::UserData(byte_orders(set)));
    Ok(SetMessage { attributes })
}

/// Writes what `nft` must know of a lone field to print it: its byte order (NFTNL_UDATA_SET_KEYBYTEORDER and
/// NFTNL_UDATA_SET_DATABYTEORDER of libnftnl's udata.h, `enum byteorder` of nftables' datatype.h).
fn byte_orders(set: &Set) -> Vec<u8> {
    const HOST: u32 = 1;
    const NETWORK: u32 = 2;
    let mut bytes = Vec::new();
    for (kind, fields) in [(0, Some(&set.key)), (1, set.data.as_ref())] {
        let order = match fields.map(Vec::as_slice) {
            Some([Field::Dev]) => HOST,
            Some([_]) => NETWORK,
            _ => continue,
        };
        bytes.extend([kind, 4]);
        bytes.extend(order.to_ne_bytes());
    }
    bytes
}

/// Reads a set.
pub(super) fn read(family: Family, message: SetMessage) -> Set {
    let mut set = Set { family, table: String::new(), name: String::new(), key: Vec::new(), data: None };
    for attribute in message.attributes {
        match attribute {
            SetAttribute::Table(table) => set.table = table,
            SetAttribute::Name(name) => set.name = name,
            SetAttribute::KeyType(number) => set.key = fields(number),
            SetAttribute::DataType(number) => set.data = Some(fields(number)),
            _ => {}
        }
    }
    set
}

/// Writes one element behind others. Not by the packet crate, which for each works out the lengths of all that is in it many
/// times over. Fails with a text that says what is wrong with it.
pub(super) fn put_element(bytes: &mut Vec<u8>, element: &Element) -> std::result::Result<(), String> {
    /// NFTA_LIST_ELEM, NFTA_DATA_VALUE, and those of `enum nft_set_elem_attributes`.
    const ELEMENT: u16 = 1 | NLA_F_NESTED;
    const VALUE: u16 = 1;
    const KEY: u16 = 1 | NLA_F_NESTED;
    const DATA: u16 = 2 | NLA_F_NESTED;
    const USERDATA: u16 = 6;
    let key = self::bytes(&element.key)?;
    let data = element.data.as_deref().map(self::bytes).transpose()?;
    let comment = element.comment.as_deref();
    let comment = comment.map(|comment| list::comment_data(comment, ELEMENT_COMMENT_BYTES_MAX)).transpose()?;
    netlink::put(bytes, ELEMENT, |bytes| {
        netlink::put(bytes, KEY, |bytes| netlink::put(bytes, VALUE, |bytes| bytes.extend(key)));
        if let Some(data) = data {
            netlink::put(bytes, DATA, |bytes| netlink::put(bytes, VALUE, |bytes| bytes.extend(data)));
        }
        if let Some(comment) = comment {
            netlink::put(bytes, USERDATA, |bytes| bytes.extend(comment));
        }
    });
    Ok(())
}

/// Writes a key or data: a lone value as it is, several each filled up to 4 bytes.
fn bytes(values: &[Value]) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            Value::Proto(proto) => bytes.push(proto.number()),
            Value::Ip(ip) => bytes.extend(address_bytes(*ip)),
            Value::Port(port) => bytes.extend(port.to_be_bytes()),
            Value::Dev(name) => match wrong_dev(name) {
                Some(wrong) => return Err(wrong),
                None => bytes.extend(dev_bytes(name)),
            },
            Value::Other(text) => return Err(format!("`{text}` can only be read")),
        }
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    Ok(bytes)
}

/// Reads the elements in one message's attributes. Not by the packet crate: for each element that writes the bytes of all
/// into a text for an error, and takes seconds for some thousand.
pub(super) fn read_elements(set: &Set, message: &[u8]) -> Vec<Element> {
    /// `enum nft_set_elem_list_attributes`.
    const ELEMENTS: u16 = 3;
    let lists = netlink::attributes(message).filter(|(kind, _)| *kind == ELEMENTS);
    lists.flat_map(|(_, list)| netlink::attributes(list)).map(|(_, element)| read_element(set, element)).collect()
}

fn read_element(set: &Set, bytes: &[u8]) -> Element {
    /// `enum nft_set_elem_attributes`.
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    const USERDATA: u16 = 6;
    /// `enum nft_set_elem_flags`, in the network's byte order.
    const INTERVAL_END: &[u8] = &[0, 0, 0, 1];
    const CATCH_ALL: &[u8] = &[0, 0, 0, 2];
    let mut element = Element { key: Vec::new(), data: None, comment: None };
    for (kind, value) in netlink::attributes(bytes) {
        match (kind, value) {
            (KEY, data) => element.key.extend(read_data(&set.key, data)),
            (DATA, data) => element.data = Some(read_data(set.data.as_deref().unwrap_or_default(), data)),
            (USERDATA, bytes) => element.comment = list::comment_of(bytes),
            (FLAGS, INTERVAL_END) => element.key.push(Value::Other("end of an interval".into())),
            (FLAGS, CATCH_ALL) => element.key.push(Value::Other("*".into())),
            _ => {}
        }
    }
    element
}

/// Reads a key or data (`enum nft_data_attributes`).
fn read_data(fields: &[Field], data: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    for attribute in NlasIterator::new(data).flatten() {
        match DataAttribute::parse(&attribute) {
            Ok(DataAttribute::Value(bytes)) => match read_bytes(fields, &bytes) {
                Some(read) => values.extend(read),
                None => values.push(Value::Other(decode::hex(&bytes))),
            },
            Ok(DataAttribute::Verdict(verdict)) => values.push(Value::Other(decode::verdict(&verdict))),
            _ => {}
        }
    }
    values
}

fn read_bytes(fields: &[Field], mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for field in fields {
        let length = field.length()?;
        values.push(field.read(bytes.get(..length)?)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (!values.is_empty()).then_some(values)
}
