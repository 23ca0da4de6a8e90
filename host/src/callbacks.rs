//! What the engine calls: the trait that an embedder implements.

use crate::types::{Event, FiveTuple, FlowId, Packet, Verdict};

/// What the engine calls, one method for each import of the contract.
///
/// A callback runs inside a call of [`Engine`](crate::Engine) and cannot call the
/// engine back: the engine is mutably borrowed for as long as it runs. So
/// callbacks record (into queues, sockets, devices) and the embedder's loop acts.
///
/// All that is lent here lies in the guest's memory and is valid for one call.
pub trait Callbacks: 'static {
    /// IP packets to transmit, in order.
    ///
    /// Returns how many, from the front, were taken. The engine keeps the rest
    /// and offers it again at the start of the next call of any kind; an embedder
    /// that took fewer calls [`Engine::l4_poll`](crate::Engine::l4_poll) when its
    /// device has room again. A number above [`Packets::len`] counts as all.
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize;

    /// Received data of a flow.
    ///
    /// TCP: the next bytes of the stream, never empty. Returns how many, from the
    /// front, were taken; the rest stays until
    /// [`Engine::flow_resume`](crate::Engine::flow_resume), and the window closes.
    ///
    /// UDP and ICMP echo: one datagram, possibly empty. One that is not taken in
    /// full is dropped and counted.
    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize;

    /// A peer opens a flow: a SYN, or the first datagram. Nothing was answered
    /// yet, and what is depends on the verdict.
    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict;

    /// Something happened to a flow. [`Event::Closed`] is the last word about it.
    fn flow_event(&mut self, flow: FlowId, event: Event);
}

/// IP packets lent out of the guest's memory for one [`Callbacks::l3_tx`].
#[derive(Clone, Copy, Debug)]
pub struct Packets<'a> {
    bytes: &'a [u8],
    packets: &'a [Packet],
}

impl<'a> Packets<'a> {
    /// Packets laid end to end in `bytes`; `None` when the lengths in `packets`
    /// do not add up to the length of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], packets: &'a [Packet]) -> Option<Self> {
        let total: u64 = packets.iter().map(|packet| u64::from(packet.length)).sum();
        (total == bytes.len() as u64).then_some(Self { bytes, packets })
    }

    /// The packets in order, each with its bytes from the IP header on.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Packet, &'a [u8])> + use<'a> {
        let mut rest = self.bytes;
        self.packets.iter().map(move |&packet| {
            let (bytes, after) = rest.split_at(packet.length as usize);
            rest = after;
            (packet, bytes)
        })
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The bytes of all packets, end to end.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
