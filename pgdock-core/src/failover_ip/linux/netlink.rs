//! The kernel's own interface for addresses (rtnetlink): who has one, add it, take it off.
//!
//! A message is a header, a body of fixed size, and attributes; numbers are in the order of this machine.
//! <https://docs.kernel.org/userspace-api/netlink/intro.html>, `rtnetlink(7)`. A few messages are all that is needed,
//! also by the deadman, which has no runtime to wait in.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;

/// IPv6: it is used at once, without asking first whether somebody else has it. Somebody may, for a moment.
const IFA_F_NODAD: u8 = 0x02;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_NOARP: u32 = 0x80;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
/// The kernel answers at once, unless it is busy with a change that takes long.
const ANSWER_BUDGET: Duration = Duration::from_secs(5);
/// The kernel sends a dump in pieces of at most this size.
const BUFFER: usize = 64 << 10;
/// A list that changed while it was told is told again.
const TRIES: usize = 8;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) index: u32,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Its hardware address, where neighbours are asked for such.
    pub(crate) mac: Option<[u8; 6]>,
}

/// Every address of this machine, in this namespace of networks.
pub(crate) fn addresses() -> Result<Vec<Held>> {
    dump(RTM_GETADDR, &[0; 8], RTM_NEWADDR, |body| {
        let (head, rest) = body.split_at_checked(8)?;
        let (mut local, mut address) = (None, None);
        for (kind, data) in attributes(rest) {
            match kind {
                IFA_LOCAL => local = ip(data),
                IFA_ADDRESS => address = ip(data),
                _ => {}
            }
        }
        // Where an interface leads to one peer, the other one is the peer's.
        Some(Held { ip: local.or(address)?, prefix: head[1], index: u32_at(head, 4)? })
    })
}

/// Where an address is held.
pub(crate) fn holders(ip: IpAddr) -> Result<Vec<Held>> {
    Ok(addresses()?.into_iter().filter(|held| held.ip == ip).collect())
}

/// Every interface.
pub(crate) fn links() -> Result<Vec<Link>> {
    dump(RTM_GETLINK, &[0; 16], RTM_NEWLINK, |body| {
        let (head, rest) = body.split_at_checked(16)?;
        let (mut name, mut mac) = (None, None);
        for (kind, data) in attributes(rest) {
            match kind {
                IFLA_IFNAME => name = data.strip_suffix(&[0]).map(|text| String::from_utf8_lossy(text).into_owned()),
                IFLA_ADDRESS => mac = <[u8; 6]>::try_from(data).ok(),
                _ => {}
            }
        }
        let asks = u32_at(head, 8)? & (IFF_LOOPBACK | IFF_NOARP) == 0;
        Some(Link { index: u32_at(head, 4)?, name: name?, mac: mac.filter(|_| asks) })
    })
}

/// Adds an address to an interface, or leaves it there.
pub(crate) fn add(held: Held) -> Result<()> {
    change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, held)
}

/// Takes it off; that it is not there is no error.
pub(crate) fn remove(held: Held) -> Result<()> {
    match change(RTM_DELADDR, 0, held) {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()) => Ok(()),
        // The interface went, and all that was on it.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Takes an address off wherever it is held; returns from how many interfaces.
pub(crate) fn take_off(ip: IpAddr) -> Result<usize> {
    let held = holders(ip)?;
    held.iter().try_for_each(|held| remove(*held))?;
    Ok(held.len())
}

fn change(kind: u16, flags: u16, held: Held) -> Result<()> {
    let (family, bytes, ifa_flags) = match held.ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec(), 0),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec(), IFA_F_NODAD),
    };
    let mut body = vec![family, held.prefix, ifa_flags, 0];
    body.extend(held.index.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        push_attribute(&mut body, kind, &bytes);
    }
    let socket = open()?;
    request(&socket, kind, flags | NLM_F_ACK, &body)?;
    let mut buffer = vec![0; BUFFER];
    let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    for (kind, _, body) in messages(&buffer[..length]) {
        if kind == NLMSG_ERROR {
            return outcome(body);
        }
    }
    Err(strange("a change was not answered"))
}

fn dump<T>(ask: u16, body: &[u8], told: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    for _ in 0..TRIES {
        if let Some(list) = dump_once(ask, body, told, &read)? {
            return Ok(list);
        }
    }
    Err(strange("the list changes faster than it can be read"))
}

/// Nothing where the list changed while it was told.
fn dump_once<T>(ask: u16, body: &[u8], told: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<Vec<T>>> {
    let socket = open()?;
    request(&socket, ask, NLM_F_DUMP, body)?;
    let (mut list, mut buffer, mut whole) = (Vec::new(), vec![0; BUFFER], true);
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 {
            return Err(strange("the list has no end"));
        }
        for (kind, flags, body) in messages(&buffer[..length]) {
            whole &= flags & NLM_F_DUMP_INTR == 0;
            match kind {
                NLMSG_DONE => return Ok(whole.then_some(list)),
                NLMSG_ERROR => outcome(body)?,
                _ if kind == told => list.extend(read(body)),
                _ => {}
            }
        }
    }
}

fn open() -> Result<OwnedFd> {
    // Without a protocol it is the one for routes and addresses.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_BUDGET))?;
    Ok(socket)
}

fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    let length = u32::try_from(HEADER + body.len()).map_err(|_| strange("a message is too long"))?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    // Each request has a socket of its own: neither a number nor a sender is needed to tell answers apart.
    message.extend([0; 8]);
    message.extend(body);
    send(socket, &message, SendFlags::empty())?;
    Ok(())
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, data: &[u8]) {
    let length = u16::try_from(4 + data.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The messages in what was received: kind, flags, body.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|_| length >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(message, 4)?, u16_at(message, 6)?, &message[HEADER..]))
    })
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let attribute = rest.get(..length).filter(|_| length >= 4)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(attribute, 2)?, &attribute[4..]))
    })
}

/// What an answer says of a change: nothing is good.
fn outcome(body: &[u8]) -> Result<()> {
    let code = u32_at(body, 0).ok_or_else(|| strange("an answer is too short"))?.cast_signed();
    if code == 0 { Ok(()) } else { Err(Error::from_raw_os_error(-code)) }
}

fn ip(data: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(data).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(data).map(|octets| IpAddr::from(Ipv6Addr::from(octets)))).ok()
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("netlink: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_interface_with_its_address() {
        let held = holders(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(held.len(), 1, "{held:?}");
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.index == held[0].index).unwrap();
        assert_eq!((lo.name.as_str(), lo.mac, held[0].prefix), ("lo", None, 8));
        assert!(holders([192, 0, 2, 77].into()).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let mut body = Vec::new();
        push_attribute(&mut body, IFA_LOCAL, &[192, 0, 2, 1]);
        push_attribute(&mut body, IFA_ADDRESS, &[1, 2, 3]);
        assert_eq!(body.len(), 16, "attributes begin at multiples of four");
        let read: Vec<_> = attributes(&body).collect();
        assert_eq!(read, [(IFA_LOCAL, &[192, 0, 2, 1][..]), (IFA_ADDRESS, &[1, 2, 3][..])]);
        assert_eq!(attributes(&body[..10]).count(), 1);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0, "a length of nothing would never end");
        assert_eq!(messages(&[3, 0, 0, 0, 0, 0]).count(), 0);
    }
}
