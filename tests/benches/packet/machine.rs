//! The contestants, with the same calls.

use l3l4_engine as engine;
use l3l4_host as guest;
use l3l4_tests::scene::{described, portion};

use super::baseline::{self, Baseline};

/// How a contestant is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) mtu: u16,
    pub(crate) buffers: Buffers,
}

/// Bytes of a flow's buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers {
    pub(crate) receive: usize,
    pub(crate) send: usize,
}

impl Buffers {
    /// The largest of the foundation.
    pub(crate) const OF_BASELINE: Self = Self {
        receive: 65_535,
        send: 1 << 20,
    };
    /// The defaults, but for the send buffer: both work on as much memory.
    pub(crate) const OF_ENGINE: Self = Self {
        receive: 4 << 20,
        send: 1 << 20,
    };
}

const SEED: [u8; 32] = [1; 32];
/// Enough for the buffers of all flows.
const MEMORY: u64 = 2 << 30;

/// An engine of any kind.
pub(crate) trait Machine {
    /// The shape that `receive` takes.
    fn pack(&self, packets: &[Vec<u8>]) -> Packets;
    fn receive(&mut self, now: u64, packets: &Packets);
    /// Returns how many bytes were taken.
    fn send(&mut self, now: u64, flow: u64, data: &[u8]) -> usize;
    /// Gives the front of `data` to each flow, `length` bytes, which are taken.
    fn send_all(&mut self, now: u64, flows: &[(u64, usize)], data: &[u8]);
    fn poll(&mut self, now: u64);
    fn record(&mut self) -> &mut Record;
}

/// Received packets, as one kind of engine takes them.
#[derive(Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    packets: Vec<engine::Packet>,
    /// Of the component.
    batch: guest::Batch,
}

impl Packets {
    fn end_to_end(packets: &[Vec<u8>]) -> Self {
        Self {
            bytes: packets.concat(),
            packets: packets.iter().map(|packet| described(packet)).collect(),
            ..Self::default()
        }
    }
}

/// What the callbacks keep, as little as can be.
#[derive(Default)]
pub(crate) struct Record {
    /// Bytes delivered.
    pub(crate) bytes: usize,
    /// Packets sent, and their bytes.
    pub(crate) packets: usize,
    pub(crate) packet_bytes: usize,
    /// The flow last announced.
    pub(crate) flow: u64,
    /// The headers of the last packet sent.
    pub(crate) last: Vec<u8>,
}

impl Record {
    fn keep(&mut self, packets: usize, bytes: usize, last: &[u8]) {
        self.packets += packets;
        self.packet_bytes += bytes;
        self.last.clear();
        self.last.extend_from_slice(&last[..last.len().min(60)]);
    }
}

struct OfBaseline(Baseline, Record);

pub(crate) fn baseline(settings: Settings) -> Box<dyn Machine> {
    let defaults = engine::Config::new(SEED);
    let engine = Baseline::new(baseline::Config {
        seed: SEED,
        mtu: settings.mtu.into(),
        receive_buffer: settings.buffers.receive,
        send_buffer: settings.buffers.send,
        handshake_timeout: defaults.handshake_timeout,
        idle_timeout: defaults.tcp_idle_timeout,
        user_timeout: defaults.user_timeout,
        fin_wait_timeout: defaults.fin_wait_timeout,
    });
    Box::new(OfBaseline(engine, Record::default()))
}

impl Machine for OfBaseline {
    fn pack(&self, packets: &[Vec<u8>]) -> Packets {
        Packets::end_to_end(packets)
    }

    fn receive(&mut self, now: u64, packets: &Packets) {
        let now = engine::Instant(now);
        self.0
            .l3_rx(now, &packets.bytes, &packets.packets, &mut self.1);
    }

    fn send(&mut self, now: u64, flow: u64, data: &[u8]) -> usize {
        let (now, flow) = (engine::Instant(now), engine::FlowId(flow));
        let sent = self.0.l4_tx(now, flow, data, &mut self.1);
        sent.unwrap().taken
    }

    fn send_all(&mut self, now: u64, flows: &[(u64, usize)], data: &[u8]) {
        for (flow, length) in flows {
            assert_eq!(self.send(now, *flow, &data[..*length]), *length);
        }
    }

    fn poll(&mut self, now: u64) {
        self.0.l4_poll(engine::Instant(now), &mut self.1);
    }

    fn record(&mut self) -> &mut Record {
        &mut self.1
    }
}

struct Native(engine::Engine, Record, (Vec<u8>, Vec<engine::Portion>));

pub(crate) fn native(settings: Settings) -> Box<dyn Machine> {
    let mut config = engine::Config::new(SEED);
    config.mtu = settings.mtu.into();
    config.memory_limit = MEMORY;
    config.tcp_receive_buffer = length(settings.buffers.receive);
    config.tcp_send_buffer = length(settings.buffers.send);
    let engine = engine::Engine::new(config).unwrap();
    Box::new(Native(engine, Record::default(), Default::default()))
}

impl Machine for Native {
    fn pack(&self, packets: &[Vec<u8>]) -> Packets {
        Packets::end_to_end(packets)
    }

    fn receive(&mut self, now: u64, packets: &Packets) {
        let now = engine::Instant(now);
        let Packets { bytes, packets, .. } = packets;
        self.0.l3_rx(now, bytes, packets, &mut self.1).unwrap();
    }

    fn send(&mut self, now: u64, flow: u64, data: &[u8]) -> usize {
        let (now, flow) = (engine::Instant(now), engine::FlowId(flow));
        let sent = self.0.l4_tx(now, flow, data, &mut self.1);
        sent.unwrap().taken
    }

    fn send_all(&mut self, now: u64, flows: &[(u64, usize)], data: &[u8]) {
        let (bytes, portions) = &mut self.2;
        bytes.clear();
        portions.clear();
        for (flow, length) in flows {
            bytes.extend_from_slice(&data[..*length]);
            portions.push(portion(engine::FlowId(*flow), *length));
        }
        let now = engine::Instant(now);
        let sent = self.0.l4_tx_batch(now, bytes, portions, &mut self.1);
        let taken = sent.unwrap().taken.into_iter().map(Result::unwrap);
        assert!(taken.eq(flows.iter().map(|(_, length)| *length)));
    }

    fn poll(&mut self, now: u64) {
        self.0.l4_poll(engine::Instant(now), &mut self.1);
    }

    fn record(&mut self) -> &mut Record {
        &mut self.1
    }
}

impl engine::Callbacks for Record {
    fn l3_tx(&mut self, bytes: &[u8], packets: &[engine::Packet]) -> usize {
        let length = packets.last().map_or(0, |packet| packet.length as usize);
        self.keep(packets.len(), bytes.len(), &bytes[bytes.len() - length..]);
        packets.len()
    }

    fn l4_rx(&mut self, _flow: engine::FlowId, data: &[u8]) -> usize {
        self.bytes += data.len();
        data.len()
    }

    fn flow_new(&mut self, flow: engine::FlowId, _tuple: &engine::FiveTuple) -> engine::Verdict {
        self.flow = flow.0;
        engine::Verdict::Accept(engine::FlowOptions::default())
    }

    fn flow_event(&mut self, _flow: engine::FlowId, _event: engine::Event) {}
}

struct Component(guest::Engine<Record>, guest::DataBatch);

pub(crate) fn component(settings: Settings) -> Box<dyn Machine> {
    let engine = guest::Engine::builder()
        .seed(SEED)
        .mtu(settings.mtu.into())
        .memory_limit(MEMORY)
        .tcp_receive_buffer(length(settings.buffers.receive))
        .tcp_send_buffer(length(settings.buffers.send))
        .build(Record::default());
    Box::new(Component(engine.unwrap(), guest::DataBatch::new()))
}

impl Machine for Component {
    fn pack(&self, packets: &[Vec<u8>]) -> Packets {
        let mut batch = guest::Batch::new();
        for packet in packets {
            batch.push(packet);
        }
        Packets {
            batch,
            ..Packets::default()
        }
    }

    fn receive(&mut self, now: u64, packets: &Packets) {
        self.0.l3_rx(guest::Instant(now), &packets.batch).unwrap();
    }

    fn send(&mut self, now: u64, flow: u64, data: &[u8]) -> usize {
        let (now, flow) = (guest::Instant(now), guest::FlowId(flow));
        self.0.l4_tx(now, flow, data).unwrap().taken
    }

    fn send_all(&mut self, now: u64, flows: &[(u64, usize)], data: &[u8]) {
        self.1.clear();
        for (flow, length) in flows {
            self.1.push(guest::FlowId(*flow), &data[..*length]);
        }
        let sent = self.0.l4_tx_batch(guest::Instant(now), &self.1);
        let taken = sent.unwrap().taken.into_iter().map(Result::unwrap);
        assert!(taken.eq(flows.iter().map(|(_, length)| *length)));
    }

    fn poll(&mut self, now: u64) {
        self.0.l4_poll(guest::Instant(now)).unwrap();
    }

    fn record(&mut self) -> &mut Record {
        self.0.callbacks_mut()
    }
}

impl guest::Callbacks for Record {
    fn l3_tx(&mut self, packets: guest::Packets<'_>) -> usize {
        let bytes = packets.iter().map(|(_, bytes)| bytes.len()).sum();
        let last = packets.iter().last().map_or(&[][..], |(_, bytes)| bytes);
        self.keep(packets.len(), bytes, last);
        packets.len()
    }

    fn l4_rx(&mut self, _flow: guest::FlowId, data: &[u8]) -> usize {
        self.bytes += data.len();
        data.len()
    }

    fn flow_new(&mut self, flow: guest::FlowId, _tuple: &guest::FiveTuple) -> guest::Verdict {
        self.flow = flow.0;
        guest::Verdict::ACCEPT
    }

    fn flow_event(&mut self, _flow: guest::FlowId, _event: guest::Event) {}
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap()
}
