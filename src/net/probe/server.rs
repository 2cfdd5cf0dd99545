//! Servers to be probed: echo, a sink, and a web server that tells whom it sees.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::datagrams::Datagrams;
use super::http_request::{self, Request};
use super::socket::plain;
use crate::net::{Error, Result};

/// How long no new client is taken where that has failed.
const BREATH: Duration = Duration::from_millis(20);

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// It sends back what it gets.
    Echo,
    /// It answers each request, with what it sees unless it was given something else.
    Http,
    /// It takes all and says nothing.
    Sink,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// What it does.
    pub service: Service,
    /// Whether it is over UDP.
    pub udp: bool,
    /// The address that it is at; all of both families if none is given.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What the web server answers; what it sees if nothing is given.
    pub body: Option<String>,
    /// The status that the web server answers with.
    pub status: u16,
    /// How it calls itself.
    pub name: String,
}

/// What the web server tells by default.
#[derive(Debug, Serialize)]
struct DefaultAnswer<'a> {
    name: &'a str,
    ip: IpAddr,
    port: u16,
    client_ip: IpAddr,
    client_port: u16,
    method: &'a str,
    path: &'a str,
}

/// Serves in the namespace of the calling thread, without end; `note` is told of the addresses when all is ready, and of each
/// connection or datagram.
///
/// EADDRINUSE if the port is taken, EADDRNOTAVAIL for an address that the namespace does not have, EACCES for a port that the
/// caller may not have.
pub async fn serve(server: &Server, note: impl Fn(&str)) -> Result<()> {
    let doing = format!("serve {} port {}", if server.udp { "UDP" } else { "TCP" }, server.port);
    let failed = |error| Error::io(doing.clone(), error);
    if server.udp {
        let sockets = listen(server).map_err(failed)?;
        let mut serving = Vec::new();
        for socket in sockets {
            serving.push(Datagrams::new(socket).map_err(failed)?);
        }
        note(&format!("serving UDP port {}", server.port));
        let echo = server.service == Service::Echo;
        let both = serving.iter().map(|socket| socket.serve(echo, &note));
        return futures_util::future::try_join_all(both).await.map(|_| ()).map_err(failed);
    }
    let mut listeners = Vec::new();
    for socket in listen(server).map_err(failed)? {
        socket.listen(1024).map_err(failed)?;
        listeners.push(TcpListener::from_std(socket.into()).map_err(failed)?);
    }
    note(&format!("serving TCP port {}", server.port));
    let both = listeners.iter().map(|listener| accept(listener, server, &note));
    futures_util::future::try_join_all(both).await.map(|_| ()).map_err(failed)
}

/// Serves as `serve` does, on a runtime of its own.
pub fn serve_here(server: &Server, note: impl Fn(&str)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the runtime", error))?;
    runtime.block_on(serve(server, note))
}

/// Opens the sockets: one for each family, so that none depends on `net.ipv6.bindv6only`.
fn listen(server: &Server) -> io::Result<Vec<Socket>> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let at = server.address.map_or(everywhere.to_vec(), |address| vec![address]);
    let mut sockets = Vec::new();
    for ip in at {
        match bind(SocketAddr::new(ip, server.port), server.udp) {
            Ok(socket) => sockets.push(socket),
            // A namespace may be without IPv6.
            Err(error)
                if server.address.is_none()
                    && ip.is_ipv6()
                    && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// Opens a socket at an address, in the namespace of the calling thread.
pub(in crate::net) fn bind(at: SocketAddr, udp: bool) -> io::Result<Socket> {
    let (kind, protocol) = if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if !udp {
        // Connections of an earlier server that are still closing are no hindrance (tcp(7)).
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

async fn accept(listener: &TcpListener, server: &Server, note: &impl Fn(&str)) -> io::Result<()> {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Of a client that is gone again; or there are no descriptors left, until one is closed.
            Err(_) => {
                let _ = tokio::time::timeout(BREATH, std::future::pending::<()>()).await;
                continue;
            }
        };
        note(&format!("connection from {}", plain(client)));
        let server = server.clone();
        // A client that breaks off is no matter of ours.
        tokio::spawn(async move {
            let _ = attend(stream, client, &server).await;
        });
    }
}

async fn attend(mut stream: TcpStream, client: SocketAddr, server: &Server) -> io::Result<()> {
    match server.service {
        Service::Echo => {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.map(|_| ())
        }
        Service::Sink => tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(|_| ()),
        Service::Http => {
            let local = plain(stream.local_addr()?);
            let Some(request) = http_request::read(&mut stream).await? else { return Ok(()) };
            stream.write_all(&answer(&request, local, plain(client), server)).await?;
            stream.shutdown().await?;
            // Closed with something unread, the kernel would reset the connection, and the answer could be lost.
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            Ok(())
        }
    }
}

/// Returns the web server's answer as it is sent.
fn answer(request: &Request, local: SocketAddr, client: SocketAddr, server: &Server) -> Vec<u8> {
    let (kind, body) = match &server.body {
        Some(body) => ("text/plain; charset=utf-8", body.clone()),
        None => {
            let seen = DefaultAnswer {
                name: &server.name,
                ip: local.ip(),
                port: local.port(),
                client_ip: client.ip(),
                client_port: client.port(),
                method: &request.method,
                path: &request.path,
            };
            // Strings and numbers can always be written.
            ("application/json", serde_json::to_string(&seen).unwrap_or_default() + "\n")
        }
    };
    let reason = http_request::reason(server.status);
    let mut answer = format!("HTTP/1.1 {} {reason}\r\ncontent-type: {kind}\r\n", server.status);
    if !matches!(server.status, 204 | 304) {
        answer.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    answer.push_str("connection: close\r\n\r\n");
    if request.method != "HEAD" && !matches!(server.status, 204 | 304) {
        answer.push_str(&body);
    }
    answer.into_bytes()
}
