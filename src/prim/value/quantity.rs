//! Rates, sizes and shares with their units: "10mbit", "64kB", "1%". A number alone is none of them.

use rhai::Dynamic;

use super::units::FromScript;

/// A rate in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub u64);

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u32);

/// A share, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

/// Takes a text apart: a number without sign, and its unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    number.parse().ok().map(|number| (number, unit))
}

const RATES: [(&str, f64); 5] = [("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("tbit", 1e12)];
const SIZES: [(&str, f64); 5] = [("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("KiB", 1024.0), ("MiB", 1024.0 * 1024.0)];

impl FromScript for Rate {
    const WHAT: &'static str = r#"a rate with its unit, such as "10mbit", "1.5gbit" or "800kbit""#;

    fn from_script(value: Dynamic) -> Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        let (number, unit) = number_and_unit(&text).ok_or_else(String::new)?;
        let Some((_, factor)) = RATES.iter().find(|(known, _)| *known == unit) else {
            return Err(wrong_rate(number, unit));
        };
        let bits = number * factor;
        // Less than a byte a second is no rate to the kernel.
        if !(8.0..=1e15).contains(&bits) {
            return Err("from 8bit to 1000tbit".into());
        }
        Ok(Rate(bits as u64))
    }
}

/// Says what a wrong unit of a rate may have meant: bits or bytes.
fn wrong_rate(number: f64, unit: &str) -> String {
    let prefix = unit.chars().next().map(|first| first.to_ascii_lowercase()).filter(|first| "kmgt".contains(*first));
    let rest = unit.get(prefix.map_or(0, char::len_utf8)..).unwrap_or_default();
    let prefix = prefix.map_or(String::new(), String::from);
    match rest {
        "" | "b" | "B" | "bps" | "Bps" | "B/s" | "b/s" | "bit/s" | "bits" | "Bit" | "BIT" | "ib" | "iB" | "ibit" => {
            format!(
                "`{unit}` may be bits or bytes: `{number}{prefix}bit`, or `{}{prefix}bit` for as many bytes",
                number * 8.0
            )
        }
        _ => "its units are `bit`, `kbit`, `mbit`, `gbit` and `tbit`".into(),
    }
}

impl FromScript for Bytes {
    const WHAT: &'static str = r#"a size with its unit, such as "1500B", "16kB" or "64KiB""#;

    fn from_script(value: Dynamic) -> Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        let (number, unit) = number_and_unit(&text).ok_or_else(String::new)?;
        let (_, factor) = SIZES
            .iter()
            .find(|(known, _)| *known == unit)
            .ok_or("its units are `B`, `kB`, `MB`, and `KiB` and `MiB` for those of 1024")?;
        let bytes = number * factor;
        if !(1.0..=f64::from(u32::MAX)).contains(&bytes) {
            return Err("from 1B to 4GB".into());
        }
        Ok(Bytes(bytes as u32))
    }
}

impl FromScript for Percent {
    const WHAT: &'static str = r#"a share such as "1%" or "0.1%""#;

    fn from_script(value: Dynamic) -> Result<Self, String> {
        let text = value.into_string().map_err(|_| String::new())?;
        let Some((number, unit)) = number_and_unit(&text) else {
            return Err(if text.starts_with('-') { "from 0% to 100%".into() } else { String::new() });
        };
        match unit {
            "%" if number <= 100.0 => Ok(Percent(number)),
            "%" => Err("from 0% to 100%".into()),
            "" => Err(format!("with its unit: `{number}%`")),
            _ => Err(String::new()),
        }
    }
}

/// Writes a rate as a script does.
pub fn rate_text(bits: u64) -> String {
    let (unit, factor) = RATES.iter().rev().find(|(_, factor)| bits as f64 >= *factor).unwrap_or(&RATES[0]);
    format!("{}{unit}", bits as f64 / factor)
}

/// Writes a time as a script does.
pub fn time_text(ns: u64) -> String {
    match ns {
        0..=999_999 => format!("{}us", ns as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{}ms", ns as f64 / 1e6),
        _ => format!("{}s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromScript>(text: &str) -> Result<T, String> {
        T::from_script(text.into())
    }

    #[test]
    fn rates_are_of_bits() {
        assert_eq!(read::<Rate>("10mbit"), Ok(Rate(10_000_000)));
        assert_eq!(read::<Rate>("1.5gbit"), Ok(Rate(1_500_000_000)));
        assert_eq!(rate_text(1_500_000_000), "1.5gbit");
        for wrong in
            ["", "10", "mbit", "-1mbit", "10 mbit", "10Mbit", ".5mbit", "0bit", "10mbits", "1e3bit", "9999tbit"]
        {
            assert!(read::<Rate>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            read::<Rate>("10mb").expect_err("no unit"),
            "`mb` may be bits or bytes: `10mbit`, or `80mbit` for as many bytes"
        );
    }

    #[test]
    fn shares_are_from_0_to_100_percent() {
        assert_eq!(read::<Percent>("0.1%"), Ok(Percent(0.1)));
        for wrong in ["101%", "-1%", "1", "1 %", "%", "1%%"] {
            assert!(read::<Percent>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_kibis() {
        assert_eq!(read::<Bytes>("16kB"), Ok(Bytes(16_000)));
        assert_eq!(read::<Bytes>("16KiB"), Ok(Bytes(16_384)));
        for wrong in ["16", "16kb", "0B", "-1B", "16KB"] {
            assert!(read::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }
}
