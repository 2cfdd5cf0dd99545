//! Datagrams at a rate. Each bears its number and the time at which it was sent: both ends have one clock.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::crew::{Crew, Pace, Stop, is_patience, make_patient};
use super::window::Window;
use super::{Throughput, ThroughputReport, warm_up};
use crate::net::probe::socket::{self, Way, option};
use crate::net::{Error, Netns, Result};

/// What is sent in a second unless told, in bits.
const RATE: u64 = 10_000_000;
/// How long one waits for datagrams that are still under way when the last one was sent.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// The longest that such a wait may be, for a queue that goes on to empty itself.
const STRAGGLERS_MAX: Duration = Duration::from_secs(3);
/// The time at which it was sent, in nanoseconds, and behind it nothing that matters.
const HEADER: usize = 8;
/// What the first datagram says, by which the server knows where the client is.
const HELLO: &[u8] = b"topo";

/// What the receiver knows.
struct Received {
    window: Window,
    /// Of those that were sent in the time that counts.
    count: u64,
    transit: Option<f64>,
    jitter: f64,
}

/// What the sender tells.
#[derive(Default)]
struct Sent {
    /// Of those that were sent in the time that counts.
    count: AtomicU64,
    done: AtomicBool,
}

/// Measures over UDP.
pub(super) async fn measure(client: &Netns, listener: Socket, way: &Way, ask: &Throughput) -> Result<ThroughputReport> {
    let doing = format!("measure the throughput to {}", way.to);
    let failed = |error| Error::io(doing.clone(), error);
    let (near, to) = socket::open(client, Type::DGRAM, way, &doing)?;
    if let Err(error) = near.connect(&to) {
        return Ok(ThroughputReport::nothing(socket::refusal(&near, &error).1));
    }
    let began = Instant::now();
    if let Err(why) = greet(&near, &listener, ask.deadline).await.map_err(failed)? {
        return Ok(ThroughputReport::nothing(why));
    }
    let round_trip = began.elapsed() * 2;
    // What fits into one packet of the path, as far as it is known.
    let path = match way.to.is_ipv4() {
        true => option(&near, libc::IPPROTO_IP, libc::IP_MTU).unwrap_or(1500) - 28,
        false => option(&near, libc::IPPROTO_IPV6, libc::IPV6_MTU).unwrap_or(1500) - 48,
    };
    let size = usize::try_from(path).unwrap_or(0).clamp(HEADER, 1472);
    for socket in [&near, &listener] {
        make_patient(socket).map_err(failed)?;
        // The kernel gives what its limit allows.
        socket.set_recv_buffer_size(4 << 20).map_err(failed)?;
    }
    let (sender, receiver) = if ask.reverse { (&listener, &near) } else { (&near, &listener) };
    let epoch = Instant::now();
    let begin = epoch + warm_up(ask, round_trip);
    let end = begin + ask.time;
    let received =
        Arc::new(Mutex::new(Received { window: Window::new(begin, end), count: 0, transit: None, jitter: 0.0 }));
    let sent = Arc::new(Sent::default());
    let clock = Clock { epoch, begin, end };
    let rate = ask.rate.unwrap_or(RATE);
    let mut crew = Crew::new();
    let (to_receiver, all_sent) = (received.clone(), sent.clone());
    crew.start(receiver, move |socket, stop| receive(socket, stop, clock, &to_receiver, &all_sent))?;
    let told = sent.clone();
    crew.start(sender, move |socket, stop| {
        send(socket, stop, clock, rate, size, &told);
        told.done.store(true, Ordering::SeqCst);
    })?;
    crew.ended_until(end + STRAGGLERS_MAX).await;
    drop(crew);
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let count = sent.count.load(Ordering::SeqCst);
    let Some((bytes, time)) = received.window.total() else {
        return Ok(ThroughputReport::nothing(
            "a first datagram went through, and then nothing in the time that was measured",
        ));
    };
    let lost = count.saturating_sub(received.count);
    Ok(ThroughputReport {
        bytes,
        time,
        sent: Some(count * size as u64),
        loss: Some(lost as f64 / count.max(1) as f64),
        jitter: Some(Duration::from_secs_f64(received.jitter / 1e9)),
        why: None,
    })
}

/// Lets the server know where the client is: through a NAT only a datagram tells.
async fn greet(near: &Socket, listener: &Socket, deadline: Duration) -> io::Result<std::result::Result<(), String>> {
    let talk = UdpSocket::from_std(near.try_clone()?.into())?;
    let listen = UdpSocket::from_std(listener.try_clone()?.into())?;
    let end = tokio::time::Instant::now() + deadline;
    let (mut heard, mut answer) = ([0; 64], [0; 64]);
    // More than once, since the first may be lost.
    for part in 1..=3u32 {
        if let Err(error) = talk.send(HELLO).await {
            return Ok(Err(socket::refusal(near, &error).1));
        }
        let until = end - deadline * (3 - part) / 3;
        tokio::select! {
            came = timeout_at(until, listen.recv_from(&mut heard)) => {
                if let Ok(came) = came {
                    let (_, client) = came?;
                    listen.connect(client).await?;
                    return Ok(Ok(()));
                }
            }
            // Nobody answers here but by an error.
            error = talk.recv(&mut answer) => {
                return Ok(Err(match error {
                    Err(error) => socket::refusal(near, &error).1,
                    Ok(_) => "something else answered, and not this server".to_string(),
                }));
            }
        }
    }
    Ok(Err(format!("no datagram came through within {}", socket::in_words(deadline))))
}

/// The times that count.
#[derive(Debug, Clone, Copy)]
struct Clock {
    epoch: Instant,
    begin: Instant,
    end: Instant,
}

impl Clock {
    fn counts(&self, time: Instant) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

fn send(socket: &Socket, stop: &Stop, clock: Clock, rate: u64, size: usize, sent: &Sent) {
    let mut bytes = vec![0; size];
    let mut pace = Pace::new(Some(rate));
    while !pace.wait(stop) {
        let now = Instant::now();
        if now >= clock.end {
            return;
        }
        bytes[..HEADER].copy_from_slice(&((now - clock.epoch).as_nanos() as u64).to_be_bytes());
        match socket.send(&bytes) {
            Err(error) if is_patience(&error) => continue,
            // One that the first queue has no room for is as lost as any other (ENOBUFS), and so is one that is refused.
            Ok(_) | Err(_) => {}
        }
        pace.note(size);
        if clock.counts(now) {
            sent.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn receive(socket: &Socket, stop: &Stop, clock: Clock, received: &Mutex<Received>, sent: &Sent) {
    let mut buffer = vec![std::mem::MaybeUninit::new(0); 1 << 16];
    let mut last = Instant::now();
    while !stop.is_said() {
        let arrived = socket.recv(&mut buffer);
        let now = Instant::now();
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        match arrived {
            Ok(length) if length >= HEADER => {
                last = now;
                // SAFETY: every byte of the buffer was given a value when it was made.
                let header = std::array::from_fn(|at| unsafe { buffer[at].assume_init() });
                let nanos = u64::from_be_bytes(header);
                let sent_at = clock.epoch + Duration::from_nanos(nanos);
                received.window.note(length, now);
                if clock.counts(sent_at) {
                    received.count += 1;
                    let transit = now.saturating_duration_since(sent_at).as_nanos() as f64;
                    if let Some(before) = received.transit {
                        received.jitter += ((transit - before).abs() - received.jitter) / 16.0;
                    }
                    received.transit = Some(transit);
                }
            }
            Ok(_) => {}
            Err(error) if is_patience(&error) => {}
            // An error that was kept for the socket.
            Err(_) => {}
        }
        let all_here = received.count >= sent.count.load(Ordering::SeqCst);
        if sent.done.load(Ordering::SeqCst) && (all_here || now.saturating_duration_since(last) > STRAGGLERS) {
            return;
        }
    }
}
