//! Datagrams that are answered from the address that they were sent to (ip(7), IP_PKTINFO): on a host with several addresses
//! the kernel would choose another one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::socket::{local_of, set_option};

/// The address that a datagram was sent to, in the kernel's form.
#[derive(Debug, Clone, Copy)]
enum SentTo {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
    Unknown,
}

/// A socket for datagrams.
pub(super) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Takes a socket that is bound.
    pub(in crate::net) fn new(socket: Socket) -> io::Result<Datagrams> {
        match local_of(&socket) {
            Some(SocketAddr::V6(_)) => set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
            _ => set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
        }
        Ok(Datagrams { socket: UdpSocket::from_std(socket.into())? })
    }

    /// Takes datagrams without end, and sends each back if it is an `echo`.
    pub(super) async fn serve(&self, echo: bool, note: &impl Fn(&str)) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, from, to) = match self.receive(&mut buffer).await {
                Ok(received) => received,
                // An error that was kept for the socket: an answer went to nobody.
                Err(_) => continue,
            };
            if let Some(client) = address_of(&from) {
                note(&format!("datagram of {length} bytes from {client}"));
            }
            if echo {
                let _ = self.socket.async_io(Interest::WRITABLE, || self.send(&buffer[..length], &from, to)).await;
            }
        }
    }

    /// Waits for a datagram and returns its length and its sender.
    pub(super) async fn receive_from(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<SocketAddr>, Option<SocketAddr>)> {
        let (length, from, to) = self.receive(buffer).await?;
        let port = self.socket.local_addr()?.port();
        let to = match to {
            SentTo::V4(info) => Some(SocketAddr::new(info.ipi_addr.s_addr.to_ne_bytes().into(), port)),
            SentTo::V6(info) => Some(SocketAddr::new(info.ipi6_addr.s6_addr.into(), port)),
            SentTo::Unknown => None,
        };
        Ok((length, address_of(&from), to))
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SockaddrStorage, SentTo)> {
        self.socket.async_io(Interest::READABLE, || receive_now(&self.socket, buffer)).await
    }

    fn send(&self, bytes: &[u8], to: &SockaddrStorage, from: SentTo) -> io::Result<usize> {
        let parts = [io::IoSlice::new(bytes)];
        let (mut v4, mut v6) = (None, None);
        match from {
            SentTo::V4(mut info) => {
                // By the address alone: the link is for the kernel to find.
                info.ipi_ifindex = 0;
                // What came to a broadcast address or a group is answered by an address of this host's own (ip(7), IP_PKTINFO).
                if info.ipi_spec_dst.s_addr == 0 {
                    info.ipi_spec_dst = info.ipi_addr;
                }
                v4 = Some(info);
            }
            SentTo::V6(mut info) => {
                if info.ipi6_addr.s6_addr[0] == 0xff {
                    info.ipi6_addr.s6_addr = [0; 16];
                }
                v6 = Some(info);
            }
            SentTo::Unknown => {}
        }
        let control: Vec<ControlMessage> = v4
            .iter()
            .map(ControlMessage::Ipv4PacketInfo)
            .chain(v6.iter().map(ControlMessage::Ipv6PacketInfo))
            .collect();
        Ok(sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(to))?)
    }
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SockaddrStorage, SentTo)> {
    let mut parts = [io::IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let from = message.address.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))?;
    let mut to = SentTo::Unknown;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => to = SentTo::V4(info),
            ControlMessageOwned::Ipv6PacketInfo(info) => to = SentTo::V6(info),
            _ => {}
        }
    }
    Ok((message.bytes, from, to))
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
}
