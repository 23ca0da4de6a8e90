//! What a stack counts, as numbers and as text for Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::{CounterSnapshot, DropReason};

/// What a [`Stack`](super::Stack) has counted since it started, summed over its
/// engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The engines' totals. Those of an engine that trapped are lost with it.
    pub engine: CounterSnapshot,
    /// The host's totals.
    pub host: Tally,
    /// Engines.
    pub instances: u32,
}

/// What the host's side counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Flows that the application accepted.
    pub accepted: u64,
    /// Flows that the application refused, or dropped without a verdict.
    pub refused: u64,
    /// Flows that the application ignored.
    pub ignored: u64,
    /// Flows that were not announced because nobody accepted those before them
    /// ([`backlog`](super::Builder::backlog)).
    pub backlog_full: u64,
    /// Datagrams to send that the engine refused.
    pub datagrams_refused: u64,
    /// Packets that the device refused for good.
    pub packets_lost: u64,
    /// Packets lost between two engines, of which one had too much to do.
    pub packets_not_handed_over: u64,
    /// Engines that trapped and were made anew.
    pub restarts: u64,
}

/// The fields of the two structs once, with what they are in words: to add them up,
/// and to show them.
macro_rules! rows {
    ($($kind:ident $part:ident.$field:ident: $help:literal,)*) => {
        impl Metrics {
            /// Adds what another engine counts.
            pub(super) fn add(&mut self, other: &Self) {
                $(self.$part.$field += other.$part.$field;)*
                for (sum, drops) in self.engine.drops.iter_mut().zip(other.engine.drops) {
                    *sum += drops;
                }
                self.instances += other.instances;
            }

            fn encode_rows(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
                $($kind(encoder, stringify!($field), $help, self.$part.$field.into())?;)*
                Ok(())
            }
        }
    };
}

rows! {
    counter engine.l3_rx_packets: "Packets given to the engine",
    counter engine.l3_rx_bytes: "Bytes of packets given to the engine",
    counter engine.l3_tx_packets: "Packets that the device took",
    counter engine.l3_tx_bytes: "Bytes of packets that the device took",
    counter engine.l4_rx_bytes: "Payload bytes received",
    counter engine.l4_tx_bytes: "Payload bytes sent",
    counter engine.l4_polls: "Calls of l4_poll",
    counter engine.datagrams_reassembled: "Datagrams put together from fragments",
    counter engine.replies_lost: "Replies not made because the device took no packets",
    counter engine.replies_limited: "Replies to strangers not made because of their limit",
    counter engine.flows_announced: "Flows opened by peers",
    counter engine.flows_opened: "Flows opened by the host",
    counter engine.flows_closed: "Flows that ended",
    counter engine.flows_evicted: "Half-open flows evicted",
    counter engine.flows_out_of_memory: "Flows refused for want of memory",
    counter engine.repeated_syns: "Repeated SYNs of flows that await their verdict",
    counter engine.syn_cookies_sent: "SYNs answered with a cookie",
    counter engine.syn_cookies_accepted: "Handshakes completed by a cookie",
    counter engine.challenge_acks: "Challenge ACKs sent",
    counter engine.retransmits: "Segments with data sent more than once",
    counter engine.time_went_back: "Calls whose instant was earlier than one seen",
    gauge engine.flows: "Flows that live",
    gauge engine.half_open: "Half-open flows",
    gauge engine.time_wait: "TIME-WAIT records",
    gauge engine.memory_bytes: "Bytes of flows' buffers and records",
    counter host.accepted: "Flows that the application accepted",
    counter host.refused: "Flows that the application refused",
    counter host.ignored: "Flows that the application ignored",
    counter host.backlog_full: "Flows not announced because the backlog was full",
    counter host.datagrams_refused: "Datagrams to send that the engine refused",
    counter host.packets_lost: "Packets that the device refused for good",
    counter host.packets_not_handed_over: "Packets lost between two engines",
    counter host.restarts: "Engines that trapped and were made anew",
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encode(encoder, name, help, &ConstCounter::new(value))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encode(encoder, name, help, &ConstGauge::new(value))
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let metric_encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(metric_encoder)
}

impl Metrics {
    pub(super) fn of(engine: CounterSnapshot, host: Tally) -> Self {
        Self {
            engine,
            host,
            instances: 1,
        }
    }

    /// The text that Prometheus reads (OpenMetrics), each name with `l3l4_` in front.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut registry = Registry::with_prefix("l3l4");
        registry.register_collector(Box::new(*self));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_rows(&mut encoder)?;
        gauge(&mut encoder, "instances", "Engines", self.instances.into())?;
        let help = "Packets dropped, by reason";
        let mut family = encoder.encode_descriptor("drops", help, None, MetricType::Counter)?;
        for reason in DropReason::ALL {
            let dropped = ConstCounter::new(self.engine.dropped(reason));
            let labels = [("reason", reason.to_string())];
            dropped.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_number_and_a_row_for_each_reason() {
        let mut metrics = Metrics::of(CounterSnapshot::default(), Tally::default());
        metrics.engine.l3_rx_packets = 7;
        metrics.engine.flows = 3;
        metrics.engine.drops[DropReason::Martian as usize] = 5;
        let mut sum = metrics;
        sum.add(&metrics);
        let text = sum.prometheus();
        for line in [
            "l3l4_l3_rx_packets_total 14",
            "l3l4_flows 6",
            "l3l4_instances 2",
            "l3l4_drops_total{reason=\"martian\"} 10",
            "l3l4_drops_total{reason=\"ip-version\"} 0",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in {text}");
        }
    }
}
