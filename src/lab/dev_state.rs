//! A device's state: how it comes up, and how it gets back what it had.

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv6Network};

use super::kernel::Kernel;
use crate::net::{self, Change, LinkConfig, Mac, Request};
use crate::state::DevRef;

/// Gives a device back what it had.
pub fn put_back(kernel: &mut Kernel, dev: &DevRef, config: &LinkConfig) -> net::Result<()> {
    let Some(link) = kernel.link(dev)? else { return Ok(()) };
    let (netns, rtnl) = (kernel.netns(&dev.netns)?, kernel.rtnl(&dev.netns)?);
    config.put_on(&rtnl, &link, None)?;
    kernel.run(config.wait_working(&netns, &rtnl, &link))
}

/// Gives a device that is about to come up the link-local address that the kernel would give it, but without duplicate
/// address detection. That takes a second or two, in which a router asks for no neighbour and drops what it should forward
/// (net/ipv6/ndisc.c, ndisc_send_ns); `tests/suite/route.rhai` shows it. The kernel then finds the address there.
pub fn add_link_local(kernel: &mut Kernel, dev: &DevRef) -> net::Result<()> {
    kernel.send(link_local_request(dev).map(|request| (&dev.netns, request)))
}

/// Returns the request of `add_link_local`, where there is one.
pub fn link_local_request(dev: &DevRef) -> Option<Request> {
    let mac = dev.mac.filter(|_| dev.made)?;
    let options = net::AddrOptions { protocol: net::ip::addr::BY_KERNEL, nodad: true, peer: None };
    // Without IPv6, in the kernel or on the device, there is nothing to be ready for.
    let passes = |error: &net::Error| {
        error.is_exists() || error.is_unsupported() || error.is_denied() || error.errno() == libc::EINVAL
    };
    Some(net::ip::addr::add_request(dev.index, link_local(mac), &options).unless(passes))
}

/// Returns the link-local address that a hardware address makes.
fn link_local(mac: Mac) -> IpNetwork {
    let ip = mac.link_local();
    // A prefix length of 64 is one that every IPv6 address can have.
    Ipv6Network::new(ip, 64).map_or_else(|_| IpNetwork::from(IpAddr::V6(ip)), IpNetwork::V6)
}

/// Sets a device up or down.
pub fn set_up(kernel: &mut Kernel, dev: &DevRef, up: bool) -> net::Result<()> {
    let change = net::link::change_request(dev.index, &Change { up: Some(up), ..Change::default() });
    let local = if up { link_local_request(dev) } else { None };
    kernel.send(local.into_iter().chain([change]).map(|request| (&dev.netns, request)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 4291, appendix A.
    #[test]
    fn a_link_local_address_is_made_of_the_hardware_address() {
        assert_eq!(link_local(Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde])).to_string(), "fe80::3656:78ff:fe9a:bcde/64");
    }
}
