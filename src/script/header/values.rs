//! The types of a script's arguments: strict, and clear about what is wrong.

use clap::ValueHint;
use serde_json::Value;

use crate::prim::{parse_cidr, parse_ip, parse_time, without_host_bits};

/// The type of an argument's values, chosen by its placeholder word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Any text: every placeholder word that is not named below.
    Text,
    /// `NAME`: text that can name a file, so not empty, `.` or `..`, and without `/` and control characters.
    Name,
    /// `FILE`: a path, which need not exist.
    File,
    /// `N`: a whole number of 64 bits.
    Integer,
    /// `PORT`: a number from 1 to 65535.
    Port,
    /// `IP`: an IPv4 or IPv6 address.
    Ip,
    /// `ADDR`: an address with its prefix length, such as `10.0.0.1/24`.
    Address,
    /// `CIDR`: a network without host bits, such as `10.0.0.0/24`.
    Network,
    /// `DURATION` or `SECONDS`: a number and its unit (`us`, `ms`, `s`, `m` or `min`, `h`), such as `15ms`.
    Duration,
    /// `K=V`, or any two words joined by `=`: a key and its value.
    KeyValue,
    /// A flag's: true where it is given.
    Bool,
}

impl ValueType {
    pub(super) fn of_placeholder(word: &str) -> ValueType {
        match word {
            "NAME" => ValueType::Name,
            "FILE" => ValueType::File,
            "N" => ValueType::Integer,
            "PORT" => ValueType::Port,
            "IP" => ValueType::Ip,
            "ADDR" => ValueType::Address,
            "CIDR" => ValueType::Network,
            "DURATION" | "SECONDS" => ValueType::Duration,
            _ if word.contains('=') => ValueType::KeyValue,
            _ => ValueType::Text,
        }
    }

    /// Checks a value and gives its JSON: numbers as numbers, all else as the text that was written.
    ///
    /// The error says what is wrong without the value itself, which whoever shows it has named.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            ValueType::Integer => return integer(text).map(Value::from),
            ValueType::Port => return port(text).map(Value::from),
            ValueType::Text | ValueType::Bool => {}
            ValueType::Name => name(text)?,
            ValueType::File if text.is_empty() => return Err("an empty path".into()),
            ValueType::File => {}
            ValueType::Ip => drop(parse_ip(text)?),
            ValueType::Address => drop(parse_cidr(text)?),
            ValueType::Network => drop(parse_cidr(text).and_then(without_host_bits)?),
            ValueType::Duration => duration(text)?,
            ValueType::KeyValue => key_value(text)?,
        }
        Ok(Value::from(text))
    }

    /// Tells the shell's completion what to offer: files for files, and not for addresses.
    pub(super) fn hint(self) -> ValueHint {
        match self {
            ValueType::File => ValueHint::FilePath,
            ValueType::Text => ValueHint::Unknown,
            _ => ValueHint::Other,
        }
    }
}

fn integer(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse::<i64>().map_err(|err| match err.kind() {
        PosOverflow | NegOverflow => "too large for a number of 64 bits".into(),
        _ => "not a whole number".into(),
    })
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("not a port, which is a number from 1 to 65535".into()),
    }
}

fn name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty name".into());
    }
    if text.contains(|c: char| c == '/' || c.is_control()) || text == "." || text == ".." {
        return Err("a name cannot be `.` or `..`, nor have a `/` or a control character in it".into());
    }
    Ok(())
}

fn duration(text: &str) -> Result<(), String> {
    if parse_time(text).is_some() {
        return Ok(());
    }
    let number = text.parse::<f64>().is_ok_and(f64::is_finite);
    Err(match number {
        true => format!("a duration needs its unit; did you mean `{text}s`?"),
        false => "not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h".into(),
    })
}

fn key_value(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(()),
        _ => Err("not a key and its value, as in `key=value`".into()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// Each case is a placeholder and values parted by `|`.
    fn wrong_values(cases: &[(&str, &str)], expected: Expect) {
        let mut lines = String::new();
        for (word, values) in cases {
            for value in values.split('|') {
                let error = ValueType::of_placeholder(word).parse(value).unwrap_err();
                lines.push_str(&format!("{word} \"{value}\": {error}\n"));
            }
        }
        expected.assert_eq(&lines);
    }

    #[test]
    fn right_values_are_taken() {
        let cases = [
            ("CIDR", "10.0.0.0/24|0.0.0.0/0|fd00::/64|10.0.0.1/32"),
            ("IP", "10.0.0.1|::1"),
            ("ADDR", "10.0.0.1/24|fd00::1/64"),
            ("PORT", "1|65535"),
            ("N", "0|-9223372036854775808"),
            ("SECONDS", "15ms|2s|1m|1min|0.5s|10us|1h"),
            ("DURATION", "2s"),
            ("NAME", "web|a b|h1.lab"),
            ("KEY=VALUE", "a=|a=b=c"),
            ("FILE", "/etc/hosts"),
            ("WORD", "|anything"),
        ];
        for (word, values) in cases {
            for value in values.split('|') {
                assert!(ValueType::of_placeholder(word).parse(value).is_ok(), "{word} {value}");
            }
        }
    }

    #[test]
    fn addresses_are_strict() {
        wrong_values(
            &[
                ("CIDR", "10.0.0.5/24|fd00::1/64|10.0.0.0|10.0.0.0/024|10.0.0.0/+24|10.0.0.0/|10.0.0.0/33|fd00::/129"),
                ("CIDR", "10.0.0.0/255.0.0.0|010.0.0.0/24|10.0.0/24|lan"),
                ("IP", "10.0.0.1/24|10.0.0.01|"),
                ("ADDR", "10.0.0.1|10.0.0.1/24/8"),
            ],
            expect![[r#"
                CIDR "10.0.0.5/24": host bits are set; did you mean `10.0.0.0/24`?
                CIDR "fd00::1/64": host bits are set; did you mean `fd00::/64`?
                CIDR "10.0.0.0": the prefix length is missing; `10.0.0.0/32` is one host
                CIDR "10.0.0.0/024": the prefix length is not a number from 0 to 32
                CIDR "10.0.0.0/+24": the prefix length is not a number from 0 to 32
                CIDR "10.0.0.0/": the prefix length is not a number from 0 to 32
                CIDR "10.0.0.0/33": the prefix length is not a number from 0 to 32
                CIDR "fd00::/129": the prefix length is not a number from 0 to 128
                CIDR "10.0.0.0/255.0.0.0": the prefix length is not a number from 0 to 32
                CIDR "010.0.0.0/24": it is not an IP address
                CIDR "10.0.0/24": it is not an IP address
                CIDR "lan": it is not an IP address
                IP "10.0.0.1/24": an address alone has no prefix length
                IP "10.0.0.01": it is not an IP address
                IP "": it is not an IP address
                ADDR "10.0.0.1": the prefix length is missing; `10.0.0.1/32` is one host
                ADDR "10.0.0.1/24/8": the prefix length is not a number from 0 to 32
            "#]],
        );
    }

    #[test]
    fn other_types_are_strict() {
        wrong_values(
            &[
                ("PORT", "0|-1|http|70000"),
                ("N", "x|1.5||9223372036854775808"),
                ("SECONDS", "2|2d|-1s|1.s|s|"),
                ("NAME", "|a/b|.."),
                ("K=V", "a|=b"),
                ("FILE", ""),
            ],
            expect![[r#"
                PORT "0": not a port, which is a number from 1 to 65535
                PORT "-1": not a port, which is a number from 1 to 65535
                PORT "http": not a port, which is a number from 1 to 65535
                PORT "70000": not a port, which is a number from 1 to 65535
                N "x": not a whole number
                N "1.5": not a whole number
                N "": not a whole number
                N "9223372036854775808": too large for a number of 64 bits
                SECONDS "2": a duration needs its unit; did you mean `2s`?
                SECONDS "2d": not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h
                SECONDS "-1s": not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h
                SECONDS "1.s": not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h
                SECONDS "s": not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h
                SECONDS "": not a duration, such as `15ms`, `2s` or `1m`; the units are us, ms, s, m (or min) and h
                NAME "": an empty name
                NAME "a/b": a name cannot be `.` or `..`, nor have a `/` or a control character in it
                NAME "..": a name cannot be `.` or `..`, nor have a `/` or a control character in it
                K=V "a": not a key and its value, as in `key=value`
                K=V "=b": not a key and its value, as in `key=value`
                FILE "": an empty path
            "#]],
        );
        assert!(ValueType::Name.parse("a\0").is_err());
    }

    proptest! {
        #[test]
        fn no_value_panics(text in any::<String>(), near in "[0-9a-f:./+-]{0,20}[a-z=]{0,3}") {
            for word in ["CIDR", "IP", "ADDR", "PORT", "N", "SECONDS", "K=V", "NAME", "FILE", "WORD"] {
                let _ = (ValueType::of_placeholder(word).parse(&text), ValueType::of_placeholder(word).parse(&near));
            }
        }
    }
}
