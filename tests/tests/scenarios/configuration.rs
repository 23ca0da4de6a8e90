//! Every item has bounds; a value outside of them is named and changes nothing.

use std::time::Duration;

use l3l4_engine::{Config, ConfigItem, CongestionControl};
use l3l4_host::{ConfigurationItem, ConfigureError, Error};
use l3l4_tests::component::Component;
use l3l4_tests::dut::Native;
use l3l4_tests::scene::config;

const MS_10: u64 = 10_000_000;
const MS_100: u64 = 100_000_000;
const S_60: u64 = 60_000_000_000;
const DAYS_7: u64 = 7 * 24 * 3600 * 1_000_000_000;

struct Item {
    native: ConfigItem,
    guest: ConfigurationItem,
    least: u64,
    most: u64,
    set: fn(&mut Config, u64),
}

macro_rules! number {
    ($name:ident, $field:ident, $least:expr, $most:expr) => {
        Item {
            native: ConfigItem::$name,
            guest: ConfigurationItem::$name,
            least: $least,
            most: $most,
            set: |config, value| config.$field = value.try_into().expect("fits the item"),
        }
    };
}

macro_rules! timeout {
    ($name:ident, $field:ident) => {
        timeout!($name, $field, MS_100, DAYS_7)
    };
    ($name:ident, $field:ident, $least:expr, $most:expr) => {
        Item {
            native: ConfigItem::$name,
            guest: ConfigurationItem::$name,
            least: $least,
            most: $most,
            set: |config, value| config.$field = Duration::from_nanos(value),
        }
    };
}

/// The bounds as `wit/types.wit` states them.
const ITEMS: [Item; 18] = [
    number!(Mtu, mtu, 1280, 65_535),
    number!(MaxFlows, max_flows, 1, 1_048_576),
    number!(MaxHalfOpen, max_half_open, 1, 1_048_576),
    number!(MemoryLimit, memory_limit, 1 << 20, 3 << 30),
    number!(TcpReceiveBuffer, tcp_receive_buffer, 2048, 16 << 20),
    number!(TcpSendBuffer, tcp_send_buffer, 2048, 16 << 20),
    timeout!(MinRto, min_rto, MS_10, S_60),
    timeout!(VerdictTimeout, verdict_timeout),
    timeout!(HandshakeTimeout, handshake_timeout),
    timeout!(TcpIdleTimeout, tcp_idle_timeout),
    timeout!(UserTimeout, user_timeout),
    timeout!(FinWaitTimeout, fin_wait_timeout),
    timeout!(TimeWait, time_wait),
    timeout!(UdpIdleTimeout, udp_idle_timeout),
    timeout!(IcmpIdleTimeout, icmp_idle_timeout),
    number!(MaxStrayReplies, max_stray_replies, 0, 1_000_000),
    number!(ReassemblyMemory, reassembly_memory, 128 << 10, 256 << 20),
    timeout!(ReassemblyTimeout, reassembly_timeout),
];

#[test]
fn the_bounds_themselves_are_allowed() {
    for item in &ITEMS {
        for value in [item.least, item.most] {
            let mut config = config();
            (item.set)(&mut config, value);
            assert!(Native::new(config).is_ok(), "{:?} {value}", item.native);
            assert!(
                Component::try_new(&config).is_ok(),
                "{:?} {value}",
                item.native
            );
        }
    }
}

#[test]
fn a_value_outside_is_an_error_that_names_it() {
    for item in &ITEMS {
        let below = item.least.checked_sub(1);
        for value in below.into_iter().chain([item.most + 1]) {
            let mut config = config();
            (item.set)(&mut config, value);
            let native = Native::new(config).expect_err("out of bounds");
            assert_eq!(
                (native.item, native.given, native.least, native.most),
                (item.native, value, item.least, item.most)
            );
            let guest = match Component::try_new(&config) {
                Err(Error::Configure(ConfigureError::OutOfBounds(error))) => error,
                Err(other) => panic!("{other}"),
                Ok(_) => panic!("{:?} {value} was taken", item.guest),
            };
            assert_eq!(
                (guest.item, guest.given, guest.least, guest.most),
                (item.guest, value, item.least, item.most)
            );
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let defaults = Config::new([0; 32]);
    let seconds = Duration::from_secs;
    assert_eq!(defaults.mtu, 1500);
    assert_eq!((defaults.max_flows, defaults.max_half_open), (65_536, 4096));
    assert_eq!(defaults.memory_limit, 256 << 20);
    assert_eq!(
        (defaults.tcp_receive_buffer, defaults.tcp_send_buffer),
        (4 << 20, 4 << 20)
    );
    assert!(defaults.syn_cookies);
    assert_eq!(defaults.congestion_control, CongestionControl::Cubic);
    assert_eq!(defaults.min_rto, Duration::from_millis(200));
    assert_eq!(defaults.verdict_timeout, seconds(75));
    assert_eq!(defaults.handshake_timeout, seconds(63));
    assert_eq!(defaults.tcp_idle_timeout, seconds(7440));
    assert_eq!(defaults.user_timeout, seconds(120));
    assert_eq!(defaults.fin_wait_timeout, seconds(60));
    assert_eq!(defaults.time_wait, seconds(60));
    assert_eq!(defaults.udp_idle_timeout, seconds(300));
    assert_eq!(defaults.icmp_idle_timeout, seconds(60));
    assert_eq!(defaults.max_stray_replies, 1000);
    assert_eq!(defaults.reassembly_memory, 4 << 20);
    assert_eq!(defaults.reassembly_timeout, seconds(60));
}
