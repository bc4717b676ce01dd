//! Tells the neighbours that an address has moved: gratuitous ARP (RFC 5227), unsolicited neighbour
//! advertisements (RFC 4861). Whoever had learned the old owner's hardware address replaces it.

#![allow(unsafe_code, reason = "a link-layer address as the kernel takes it")]

use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{set_ipv6_multicast_hops, set_ipv6_multicast_if};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with};

use super::netlink::Link;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ARPHRD_ETHER: u16 = 1;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A receiver drops what could have been routed.
const HOPS: u32 = 255;
/// An advertisement replaces what its receiver knows.
const OVERRIDE: u8 = 0x20;

/// Announces once that an address is at an interface. An interface without neighbours is left alone.
pub(super) fn announce(link: &Link, ip: IpAddr) -> Result<()> {
    match (link.mac, ip) {
        (Some(mac), IpAddr::V4(ip)) => arp(link.index, mac, ip),
        (Some(mac), IpAddr::V6(ip)) => advertise(link.index, mac, ip),
        (None, _) => Ok(()),
    }
}

fn arp(index: u32, mac: [u8; 6], ip: Ipv4Addr) -> Result<()> {
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let everybody = LinkAddress::new(index, BROADCAST);
    // Some heed only the one, some only the other.
    for operation in [ARP_REQUEST, ARP_REPLY] {
        sendto(&socket, &packet(operation, mac, ip), SendFlags::empty(), &everybody)?;
    }
    Ok(())
}

/// Sender and target are the announced address itself.
fn packet(operation: u16, mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(28);
    packet.extend(ARPHRD_ETHER.to_be_bytes());
    packet.extend(ETHERTYPE_IPV4.to_be_bytes());
    packet.extend([6, 4]);
    packet.extend(operation.to_be_bytes());
    packet.extend(mac);
    packet.extend(ip.octets());
    packet.extend(if operation == ARP_REQUEST { [0; 6] } else { BROADCAST });
    packet.extend(ip.octets());
    packet
}

fn advertise(index: u32, mac: [u8; 6], ip: Ipv6Addr) -> Result<()> {
    let socket = socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMPV6))?;
    set_ipv6_multicast_hops(&socket, HOPS)?;
    set_ipv6_multicast_if(&socket, index)?;
    bind(&socket, &SocketAddrV6::new(ip, 0, 0, 0))?;
    // Type, code, and the checksum, which the kernel fills in.
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(ip.octets());
    // Option: the hardware address of the target, in units of eight bytes.
    message.extend([2, 1]);
    message.extend(mac);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrV6::new(ALL_NODES, 0, 0, index))?;
    Ok(())
}

/// `sockaddr_ll`: hardware addresses of an interface's neighbours.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct LinkAddress {
    family: u16,
    /// In network order.
    protocol: u16,
    index: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkAddress {
    fn new(index: u32, mac: [u8; 6]) -> Self {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: ETHERTYPE_ARP.to_be(),
            index: index.cast_signed(),
            hardware: ARPHRD_ETHER,
            packet: 0,
            length: 6,
            address,
        }
    }
}

// SAFETY: the pointer is to a whole value that is borrowed for the call, laid out as `packet(7)` says, without a
// gap between its fields.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LENGTH: SocketAddrLen = 20;
        const { assert!(size_of::<Self>() == LENGTH as usize) };
        f(std::ptr::from_ref(self).cast(), LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_as_the_rfc_has_it() {
        let mac = [2, 0, 0, 0, 0, 7];
        let request = packet(ARP_REQUEST, mac, [192, 0, 2, 1].into());
        let expected = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];
        assert_eq!(request, expected);
        assert_eq!(packet(ARP_REPLY, mac, [192, 0, 2, 1].into())[18..24], BROADCAST);
    }
}
