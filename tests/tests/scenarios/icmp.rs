//! ICMP echo by policy, and nothing else.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, Config, DropReason, FiveTuple, IcmpEchoPolicy, Protocol, Refusal, Timer, Verdict,
};
use l3l4_tests::craft::{Family, icmp, ping};
use l3l4_tests::scene::{config, on_both, on_both_families};

fn with(policy: IcmpEchoPolicy) -> Config {
    Config {
        icmp_echo: policy,
        ..config()
    }
}

#[test]
fn echo_is_answered_with_the_same_data() {
    on_both_families(config(), |scene, family| {
        for size in [0, 1, 56, 1400] {
            let data = vec![0x5a; size];
            scene.rx(echo(family, 77, 3, &data));
            let answer = scene.packet();
            assert_eq!(
                (answer.from, answer.to),
                (family.local(0).ip(), family.peer(0).ip())
            );
            let answer = answer.icmp();
            assert_eq!((answer.kind, answer.code), (reply_kind(family), 0));
            assert_eq!(answer.rest, [0, 77, 0, 3]);
            assert_eq!(answer.payload, data);
        }
        scene.nobody_announced();
        assert!(scene.flows().is_empty());
    });
}

#[test]
fn echo_is_dropped_by_policy_and_counted() {
    on_both_families(with(IcmpEchoPolicy::Drop), |scene, family| {
        scene.rx(echo(family, 77, 3, b"data"));
        scene.silence();
        scene.nobody_announced();
        assert_eq!(scene.drops(DropReason::EchoPolicy), 1);
    });
}

#[test]
fn echo_is_delivered_by_policy_as_a_flow_of_its_identifier() {
    on_both_families(with(IcmpEchoPolicy::Deliver), |scene, family| {
        scene.rx(echo(family, 77, 3, b"data"));
        let (flow, tuple) = scene.announced();
        let expected = FiveTuple {
            protocol: Protocol::IcmpEcho,
            local: family.local(0),
            peer: family.peer(77),
        };
        assert_eq!(tuple, expected);
        scene.rx(echo(family, 77, 4, b""));
        scene.nobody_announced();
        assert_eq!(
            scene.datagrams(flow),
            [b"\0\x03data".to_vec(), b"\0\x04".to_vec()]
        );
        scene.silence();

        assert_eq!(scene.tx(flow, b"\0\x03data"), Ok(6));
        let answer = scene.packet().icmp();
        assert_eq!(
            (answer.kind, answer.rest),
            (reply_kind(family), [0, 77, 0, 3])
        );
        assert_eq!(answer.payload, b"data");

        scene.rx(echo(family, 78, 1, b"other"));
        assert_eq!(scene.announced().1.peer.port(), 78);
    });
}

#[test]
fn a_delivered_flow_ends_60_s_after_its_last_message() {
    on_both_families(with(IcmpEchoPolicy::Deliver), |scene, family| {
        scene.rx(echo(family, 77, 3, b"data"));
        let (flow, _) = scene.announced();
        scene.wait(Duration::from_secs(40));
        scene.tx(flow, b"\0\x03data").unwrap();
        scene.wait(Duration::from_millis(59_900));
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_millis(200));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn a_refused_echo_is_prohibited() {
    on_both_families(with(IcmpEchoPolicy::Deliver), |scene, family| {
        scene.verdict_on_new(Verdict::Refuse(Refusal::Reset));
        let request = echo(family, 77, 3, b"data");
        scene.rx(request.clone());
        let answer = scene.packet().icmp();
        let code = if family == Family::V4 {
            (3, 13)
        } else {
            (1, 1)
        };
        assert_eq!((answer.kind, answer.code), code);
        assert!(request.starts_with(&answer.payload));
        assert_eq!(scene.drops(DropReason::Refused), 1);
    });
}

#[test]
fn other_messages_are_ignored_and_counted() {
    on_both_families(config(), |scene, family| {
        let kinds: &[u8] = match family {
            Family::V4 => &[0, 4, 5, 9, 10, 13, 17, 200],
            Family::V6 => &[129, 130, 133, 134, 135, 136, 137, 200],
        };
        for &kind in kinds {
            let (from, to) = (family.peer(0).ip(), family.local(0).ip());
            scene.rx(icmp(from, to, kind, 0, [0; 4], &[0; 32]));
            scene.silence();
        }
        scene.nobody_announced();
        let count = u64::try_from(kinds.len()).unwrap();
        assert_eq!(scene.drops(DropReason::IcmpIgnored), count);
    });
}

#[test]
fn echo_to_or_from_many_is_silence() {
    on_both(config(), |scene| {
        let pairs = [
            ("198.51.100.2", "255.255.255.255"),
            ("198.51.100.2", "224.0.0.1"),
            ("255.255.255.255", "192.0.2.1"),
            ("224.0.0.1", "192.0.2.1"),
            ("0.0.0.0", "192.0.2.1"),
            ("2001:db8::b", "ff02::1"),
            ("ff02::1", "2001:db8::a"),
            ("::", "2001:db8::a"),
        ];
        for (from, to) in pairs {
            scene.rx(ping(
                from.parse().unwrap(),
                to.parse().unwrap(),
                1,
                1,
                b"data",
            ));
            scene.silence();
        }
        assert_eq!(scene.drops(DropReason::Martian), 8);
    });
}

fn echo(family: Family, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    ping(
        family.peer(0).ip(),
        family.local(0).ip(),
        identifier,
        sequence,
        data,
    )
}

fn reply_kind(family: Family) -> u8 {
    match family {
        Family::V4 => 0,
        Family::V6 => 129,
    }
}
