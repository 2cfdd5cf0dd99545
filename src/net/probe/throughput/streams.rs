//! Streams of TCP: each has a thread that sends and one that receives.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use socket2::Socket;
use tokio::net::TcpListener;
use tokio::time::timeout_at;

use super::crew::{Crew, Pace, Stop, is_patience, make_patient};
use super::window::Window;
use super::{Throughput, ThroughputReport, warm_up};
use crate::net::probe::socket::Way;
use crate::net::probe::tcp::{Connected, connect};
use crate::net::{Error, Netns, Result};

/// Measures over TCP.
pub(super) async fn measure(client: &Netns, listener: Socket, way: &Way, ask: &Throughput) -> Result<ThroughputReport> {
    let doing = format!("measure the throughput to {}", way.to);
    let failed = |error| Error::io(doing.clone(), error);
    listener.listen(ask.streams.min(4096) as i32).map_err(failed)?;
    let listener = TcpListener::from_std(listener.into()).map_err(failed)?;
    let start = tokio::time::Instant::now();
    let deadline = start + ask.deadline;
    let (mut sockets, mut round_trip) = (Vec::new(), Duration::ZERO);
    for _ in 0..ask.streams {
        let began = Instant::now();
        let near = match connect(client, way, ask.deadline, deadline).await? {
            Connected::Stream(stream, _) => stream,
            Connected::Refused(_, why) => return Ok(ThroughputReport::nothing(why)),
        };
        round_trip = began.elapsed();
        let Ok(far) = timeout_at(deadline, listener.accept()).await else {
            return Ok(ThroughputReport::nothing(format!(
                "`{}` took the connection, and it was not this server",
                way.to
            )));
        };
        let near = Socket::from(near.into_std().map_err(failed)?);
        let far = Socket::from(far.map_err(failed)?.0.into_std().map_err(failed)?);
        for socket in [&near, &far] {
            make_patient(socket).map_err(failed)?;
        }
        sockets.push(if ask.reverse { (far, near) } else { (near, far) });
    }
    let begin = Instant::now() + warm_up(ask, round_trip);
    let end = begin + ask.time;
    let window = Arc::new(Mutex::new(Window::new(begin, end)));
    let mut crew = Crew::new();
    let share = ask.rate.map(|rate| rate / u64::from(ask.streams.max(1)));
    for (sender, receiver) in &sockets {
        let window = window.clone();
        crew.start(receiver, move |socket, stop| receive(socket, stop, &window))?;
        crew.start(sender, move |socket, stop| send(socket, stop, share))?;
    }
    crew.ended_until(end).await;
    drop(crew);
    let total = window.lock().unwrap_or_else(PoisonError::into_inner).total();
    Ok(match total {
        Some((bytes, time)) => ThroughputReport { bytes, time, ..ThroughputReport::default() },
        None => ThroughputReport::nothing("connected, but nothing arrived in the time that was measured"),
    })
}

fn send(socket: &Socket, stop: &Stop, rate: Option<u64>) {
    // About a millisecond's worth at a time, so that a slow stream is an even one.
    let size = rate.map_or(1 << 17, |rate| (rate / 8 / 1000).clamp(1000, 1 << 17) as usize);
    let bytes = vec![0; size];
    let mut pace = Pace::new(rate);
    while !pace.wait(stop) {
        match socket.send(&bytes) {
            Ok(sent) => pace.note(sent),
            Err(error) if is_patience(&error) => {}
            Err(_) => return,
        }
    }
}

fn receive(socket: &Socket, stop: &Stop, window: &Mutex<Window>) {
    let mut buffer = vec![0; 1 << 20];
    while !stop.is_said() {
        // The bytes are let go and not copied: they are all alike (tcp(7), MSG_TRUNC).
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Ok(0) => return,
            Ok(bytes) => window.lock().unwrap_or_else(PoisonError::into_inner).note(bytes, Instant::now()),
            Err(errno) if is_patience(&errno.into()) => {}
            Err(_) => return,
        }
    }
}
