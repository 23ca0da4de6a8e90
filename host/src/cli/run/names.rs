//! What DNS tells the program, heard in passing: it gives addresses their names.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use l3l4_host::device::Device;
use simple_dns::Packet;
use simple_dns::rdata::RData;
use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, UdpPacket};

/// Most addresses whose names are known; the oldest is forgotten.
const MOST: usize = 4096;
const DNS: u16 = 53;

/// The names of addresses.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    names: HashMap<IpAddr, Arc<str>>,
    /// In the order in which they became known.
    order: VecDeque<IpAddr>,
}

impl Names {
    /// The name that was asked for when this address was the answer.
    pub(super) fn of(&self, address: IpAddr) -> Option<Arc<str>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.names.get(&address).cloned()
    }

    fn learn(&self, name: &str, address: IpAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.names.insert(address, name.into()).is_none() {
            known.order.push_back(address);
        }
        if known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.names.remove(&oldest);
        }
    }

    /// Learns from a packet, if it is an answer of DNS over UDP.
    fn hear(&self, packet: &[u8]) {
        let Some(answer) = dns_answer(packet) else {
            return;
        };
        let Ok(answer) = Packet::parse(answer) else {
            return;
        };
        let Some(question) = answer.questions.first() else {
            return;
        };
        let name = question.qname.to_string();
        for record in &answer.answers {
            match &record.rdata {
                RData::A(a) => self.learn(&name, IpAddr::V4(a.address.into())),
                RData::AAAA(aaaa) => self.learn(&name, IpAddr::V6(aaaa.address.into())),
                _ => {}
            }
        }
    }
}

/// The data of a whole UDP packet that comes from the port of DNS.
fn dns_answer(packet: &[u8]) -> Option<&[u8]> {
    let datagram = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let packet = Ipv4Packet::new_checked(packet).ok()?;
            let is_whole = !packet.more_frags() && packet.frag_offset() == 0;
            let is_udp = packet.next_header() == IpProtocol::Udp;
            (is_whole && is_udp).then(|| packet.payload())?
        }
        IpVersion::Ipv6 => {
            let packet = Ipv6Packet::new_checked(packet).ok()?;
            (packet.next_header() == IpProtocol::Udp).then(|| packet.payload())?
        }
    };
    let datagram = UdpPacket::new_checked(datagram).ok()?;
    (datagram.src_port() == DNS).then(|| datagram.payload())
}

/// A device whose packets to the program are listened to.
#[derive(Debug)]
pub(super) struct Listening<D> {
    device: D,
    names: Arc<Names>,
}

impl<D> Listening<D> {
    pub(super) fn new(device: D, names: Arc<Names>) -> Self {
        Self { device, names }
    }
}

impl<D: Device> Device for Listening<D> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.receive(buffer)
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.device.send(packet)?;
        self.names.hear(packet);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, want_room: bool) -> io::Result<()> {
        self.device.wait(timeout, want_room)
    }

    fn mtu(&self) -> usize {
        self.device.mtu()
    }
}

impl<D: AsFd> AsFd for Listening<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::{A, RData};
    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::{MOST, Names};

    fn answer(name: &str, address: [u8; 4]) -> Vec<u8> {
        let name = Name::new(name).unwrap().into_owned();
        let mut answer = Packet::new_reply(7);
        let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
        let question = Question::new(name.clone(), kind, class, false);
        answer.questions.push(question);
        let data = RData::A(A::from(std::net::Ipv4Addr::from(address)));
        let record = ResourceRecord::new(name, CLASS::IN, 60, data);
        answer.answers.push(record);
        answer.build_bytes_vec().unwrap()
    }

    /// UDP from `port` in IPv4, without checksums: nobody looks at them here.
    fn packet(port: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(28 + data.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet.extend([192, 0, 0, 1, 192, 0, 0, 2]);
        packet.extend(port.to_be_bytes());
        packet.extend([0x80, 0]);
        packet.extend((length - 20).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(data);
        packet
    }

    #[test]
    fn an_address_has_the_name_that_was_asked_for() {
        let names = Names::default();
        names.hear(&packet(54, &answer("not.org", [192, 0, 2, 8])));
        names.hear(&packet(53, &answer("example.org", [192, 0, 2, 7])));
        names.hear(&packet(53, &[0xff; 40]));
        let name = names.of([192, 0, 2, 7].into());
        assert_eq!(name.as_deref(), Some("example.org"));
        assert_eq!(names.of([192, 0, 2, 8].into()), None);
    }

    #[test]
    fn the_oldest_name_is_forgotten() {
        let names = Names::default();
        for number in 0..=u32::try_from(MOST).unwrap() {
            names.learn("a", std::net::Ipv4Addr::from_bits(number).into());
        }
        assert_eq!(names.of([0, 0, 0, 0].into()), None);
        assert!(names.of([0, 0, 0, 1].into()).is_some());
    }
}
