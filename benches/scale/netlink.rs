//! Route netlink in bytes: messages are put together by hand and several go out in one call (netlink(7), rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_NEWROUTE: u16 = 24;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
pub(crate) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(crate) const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const VETH_INFO_PEER: u16 = 1;
pub(crate) const IFLA_BR_MCAST_SNOOPING: u16 = 23;
pub(crate) const IFA_LOCAL: u16 = 2;
pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_FLAGS: u16 = 8;
pub(crate) const RTA_DST: u16 = 1;
pub(crate) const RTA_GATEWAY: u16 = 5;

pub(crate) const UP: u32 = libc::IFF_UP as u32;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Messages that go out together.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
}

impl Messages {
    /// Begins a message.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.last = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self
    }

    /// Begins a message that makes something.
    pub(crate) fn make(&mut self, kind: u16) -> &mut Messages {
        self.begin(kind, NEW)
    }

    /// Appends a header of a link, with flags that it gets.
    pub(crate) fn link(&mut self, index: u32, flags: u32) -> &mut Messages {
        self.change_flags(index, flags, flags)
    }

    /// Appends a header of a link, with what those of its flags become that are to change.
    pub(crate) fn change_flags(&mut self, index: u32, flags: u32, change: u32) -> &mut Messages {
        self.bytes.extend([0; 4]);
        self.bytes.extend(index.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(change.to_ne_bytes());
        self
    }

    /// Appends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Messages {
        self.bytes.extend(bytes);
        self
    }

    /// Appends an attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Messages {
        self.nest(kind, |messages| {
            messages.bytes.extend(value);
        })
    }

    /// Appends an attribute of four bytes.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a text with its end.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) -> &mut Messages {
        self.nest(kind, |messages| {
            messages.bytes.extend(text.as_bytes());
            messages.bytes.push(0);
        })
    }

    /// Appends an attribute that holds what `fill` appends.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Messages)) -> &mut Messages {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Ends a message.
    pub(crate) fn end(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        self.bytes[self.last..self.last + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// A route netlink socket of the namespace that the thread was in when it was opened.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens one.
    pub(crate) fn open() -> io::Result<Socket> {
        // SAFETY: socket(2) takes no pointers, and the descriptor that it returns is ours alone.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Socket(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends the messages in one call and waits for the answer to the last one; the first error of any comes before it.
    pub(crate) fn send(&self, messages: &mut Messages) -> io::Result<()> {
        let flags = messages.last + 6;
        let with_ack = u16::from_ne_bytes([messages.bytes[flags], messages.bytes[flags + 1]]) | ACK;
        messages.bytes[flags..flags + 2].copy_from_slice(&with_ack.to_ne_bytes());
        let bytes = &messages.bytes;
        // SAFETY: the pointer and the length are those of a living vector.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer = [0_u8; 16384];
        loop {
            // SAFETY: likewise, and the kernel writes no more than the length.
            let got = unsafe { libc::recv(self.0.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
            let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
            // An answer is the header, the number of the error, and the message; a link that was asked for comes as itself.
            let kind = u16::from_ne_bytes([answer[4], answer[5]]);
            if got >= 20 && kind == libc::NLMSG_ERROR as u16 {
                let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
                messages.bytes.clear();
                return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
        }
    }
}
