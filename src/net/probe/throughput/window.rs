//! What arrived in the time that counts, and how fast that was.

use std::time::{Duration, Instant};

/// Arrivals that came together, and all bytes up to the last of them.
#[derive(Debug, Clone, Copy)]
struct Clump {
    from: Instant,
    until: Instant,
    bytes: u64,
}

/// What arrived in the time that counts.
#[derive(Debug)]
pub(super) struct Window {
    begin: Instant,
    end: Instant,
    clumps: Vec<Clump>,
}

impl Window {
    /// Makes an empty one.
    pub(super) fn new(begin: Instant, end: Instant) -> Window {
        Window { begin, end, clumps: Vec::new() }
    }

    /// The time of which arrivals count as one. There are never more than so many of them, however much arrives.
    fn grain(&self) -> Duration {
        (self.end - self.begin) / 1000
    }

    /// Counts what arrived at a time.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) {
        if now < self.begin || now > self.end {
            return;
        }
        let (grain, bytes) = (self.grain(), bytes as u64);
        match self.clumps.last_mut() {
            Some(last) if now.saturating_duration_since(last.from) < grain => {
                last.until = now;
                last.bytes += bytes;
            }
            last => {
                let bytes = last.map_or(0, |last| last.bytes) + bytes;
                self.clumps.push(Clump { from: now, until: now, bytes });
            }
        }
    }

    /// Returns the bytes and the time in which they arrived.
    ///
    /// It counts from the end of one burst to the end of another: when the first one began to be sent is not known, and the last one
    /// may have been cut short. A shaper lets bursts pass, and one too many of them would be some per cent of a second.
    pub(super) fn total(&self) -> Option<(u64, Duration)> {
        let (first, last) = (self.clumps.first()?, self.clumps.last()?);
        let gaps = || self.clumps.windows(2).map(|pair| (pair[0], pair[1], pair[1].from - pair[0].until));
        let longest = gaps().map(|(_, _, gap)| gap).max().unwrap_or_default();
        let near = (self.end - self.begin) / 20;
        let is_pause = |gap: Duration| gap >= self.grain() && gap * 4 >= longest;
        let from = gaps()
            .take_while(|(before, ..)| before.until - first.from < near)
            .find(|(_, _, gap)| is_pause(*gap))
            .map_or(*first, |(before, ..)| before);
        let silence = self.end.saturating_duration_since(last.until);
        // Where it stopped before the end, the silence counts too.
        if silence > longest * 2 || last.until <= from.until {
            return Some((last.bytes - from.bytes, self.end.saturating_duration_since(from.until)));
        }
        let until = gaps()
            .rev()
            .take_while(|(_, after, _)| last.until - after.from < near)
            .find(|(_, _, gap)| is_pause(*gap))
            .map_or(*last, |(before, ..)| before);
        let until = if until.until > from.until { until } else { *last };
        Some((until.bytes - from.bytes, until.until - from.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Notes 1000 bytes at each of these milliseconds of a window of a second; returns bytes and milliseconds.
    fn total(times: impl IntoIterator<Item = u64>) -> Option<(u64, u128)> {
        let zero = Instant::now();
        let mut window = Window::new(zero, zero + ms(1000));
        times.into_iter().for_each(|at| window.note(1000, zero + ms(at)));
        window.total().map(|(bytes, time)| (bytes, time.as_millis()))
    }

    fn rate(times: impl IntoIterator<Item = u64>) -> f64 {
        let (bytes, time) = total(times).expect("something arrived");
        bytes as f64 / time as f64
    }

    #[test]
    fn an_even_stream_is_measured_exactly() {
        assert_eq!(total([]), None);
        assert_eq!(rate((0..=1000).step_by(100)), 10.0);
        assert_eq!(rate((50..=1000).step_by(100)), 10.0);
        assert_eq!(rate((3..=1000).step_by(1)), 1000.0);
        assert_eq!(rate((3..=1000).step_by(7)), 1000.0 / 7.0);
    }

    #[test]
    fn bursts_are_no_error() {
        // Ten at once, every 40 ms, whichever of a burst comes first in the window.
        let bursts =
            |shift: u64| (0..300).map(move |n| n / 10 * 40 + n % 10).skip(shift as usize).filter(|at| *at <= 1000);
        for shift in 0..10 {
            let rate = rate(bursts(shift));
            assert!((245.0..255.0).contains(&rate), "{shift}: {rate}");
        }
    }

    #[test]
    fn a_stream_that_stops_is_slow_and_not_short() {
        assert_eq!(total((0..100).step_by(10)), Some((9000, 1000)));
        assert_eq!(total([400]), Some((0, 600)));
    }

    #[test]
    fn one_pause_in_a_dense_stream_changes_nothing() {
        let rate = rate((0..=1000).filter(|at| !(20..25).contains(at) && !(970..980).contains(at)));
        assert!((960.0..1010.0).contains(&rate), "{rate}");
    }
}
