//! Ethernet addresses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet address, "02:00:5e:10:00:01" in text and in serde.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns a locally administered unicast address (IEEE 802, 8.4: second-lowest bit of the first byte set, lowest
    /// clear) that follows from `seed` alone. 46 bits of it differ from seed to seed.
    pub fn local(seed: u64) -> Mac {
        // splitmix64: neighbouring seeds give unlike addresses.
        let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, e, f, ..] = (x ^ (x >> 31)).to_be_bytes();
        Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
    }

    /// Returns the IPv6 link-local address that follows from it (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
        Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3])
    }

    /// Reads an address as netlink has it; anything but six bytes is none.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Mac> {
        bytes.try_into().ok().map(Mac)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

/// Says that a text is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: six bytes in hexadecimal with colons between, as in 02:00:00:00:00:01")]
pub struct InvalidMac(String);

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> std::result::Result<Mac, InvalidMac> {
        let invalid = || InvalidMac(text.to_string());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(invalid)?;
            // `from_str_radix` would also take "+1".
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Mac(bytes))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 6]) {
            assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }

        #[test]
        fn a_local_address_is_local_and_unicast(seed: u64) {
            assert_eq!(Mac::local(seed).0[0] & 0x03, 0x02);
        }
    }

    #[test]
    fn what_is_no_address() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02:00:00:00:00:+1", "02-00-00-00-00-01"]
        {
            assert_eq!(text.parse::<Mac>(), Err(InvalidMac(text.to_string())));
        }
    }

    #[test]
    fn serde_has_it_as_text() {
        let mac = Mac([2, 0, 0x5e, 0x10, 0, 1]);
        let json = serde_json::to_string(&mac).expect("serializes");
        assert_eq!(json, r#""02:00:5e:10:00:01""#);
        assert_eq!(serde_json::from_str::<Mac>(&json).expect("deserializes"), mac);
    }
}
