//! UDP: checksums, lengths, large datagrams, and how long a flow lives.

use l3l4_engine::{CloseReason, FlowError, Timer};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, secs, stream};
use l3l4_tests::craft::{self, Family};
use l3l4_tests::wire::{self, Body, Seen};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        75,
        "768, 8200 8.1, 6935",
        "a bad sum, none over IPv6, a length of 0, 7 or too much: dropped",
        broken_datagrams,
    ),
    Case::new(
        76,
        "768, 791, 8200 5",
        "a sum is never 0; 8,000 B over an MTU of 1,500 go whole or are refused",
        large_datagrams,
    ),
    Case::new(
        77,
        "4787 REQ-5, REQ-6, REQ-8",
        "an idle flow lives 2 minutes, outbound renews it, other ports, empty datagrams",
        idle_flow,
    ),
];

/// A flow of datagrams between the peer's port 5000 and port 53.
fn opened(x: &mut Exchange<'_>) {
    let mut talk = Talk::new(x.family, 5000);
    talk.local.set_port(53);
    x.turn_to(talk);
    x.inject(datagram(x, b"query"));
    x.expect_flow();
    x.expect_delivered(b"query");
}

fn datagram(x: &Exchange<'_>, data: &[u8]) -> Vec<u8> {
    craft::udp(x.family.peer(5000), x.family.local(53), data)
}

fn broken_datagrams(x: &mut Exchange<'_>) {
    opened(x);
    let at = x.family.ip_header();
    let mut bad = datagram(x, b"bad sum");
    bad[at + 6] ^= 0x55;
    x.inject(bad);
    x.expect_delivered(b"");
    let mut none = datagram(x, b"no sum");
    none[at + 6..at + 8].fill(0);
    x.inject(none);
    match x.family {
        Family::V4 => x.expect_delivered(b"no sum"),
        Family::V6 => x.expect_delivered(b""),
    }
    for length in [0u16, 7, 8 + 6 + 1, 200, 0xffff] {
        let mut packet = datagram(x, b"length");
        packet[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
        x.inject(craft::seal(packet));
        x.expect_delivered(b"");
    }
    x.silence();
    x.inject(datagram(x, b"good"));
    x.expect_delivered(b"good");
}

fn large_datagrams(x: &mut Exchange<'_>) {
    opened(x);
    // Two bytes of data that make the sum 0, which goes as 0xffff (RFC 768).
    let (local, peer) = (x.family.local(53), x.family.peer(5000));
    let at = x.family.ip_header() + 6;
    let none = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|data| craft::udp(local, peer, data)[at..at + 2] == [0xff, 0xff]);
    let data = none.expect("one of 65,536");
    // The reader refuses a sum of 0 and a wrong one.
    x.app_sends(&data);
    let [
        (
            _,
            Seen {
                body: Body::Udp(sent),
                ..
            },
        ),
    ] = &x.packets_for(secs(0))[..]
    else {
        x.fail("expected one datagram");
    };
    x.require(sent.payload == data, "the two bytes");

    let large = stream(0, 8000);
    let flow = x.flow();
    let taken = x.scene.tx(flow, &large);
    x.settle();
    let pieces = x.packets_for(secs(0));
    let pieces: Vec<_> = pieces.into_iter().map(|(_, seen)| seen).collect();
    match taken {
        Err(FlowError::TooLong) => x.require(pieces.is_empty(), "nothing of what was refused"),
        Ok(8000) => {
            let fits = pieces.iter().all(|piece| piece.length <= 1500);
            x.require(fits, "pieces within the MTU");
            match wire::reassemble(&pieces).map(|whole| whole.body) {
                Ok(Body::Udp(whole)) => x.require(whole.payload == large, "8,000 B, whole"),
                other => x.fail(format!("expected a whole datagram; {other:?}")),
            }
        }
        other => x.fail(format!("expected all or a refusal; {other:?}")),
    }
    x.app_sends(b"goes on");
    let goes_on = x.packets_for(secs(0)).len();
    x.require(goes_on == 1, "the next datagram");
}

/// What a NAT has to keep, the engine has to: the application sees the flow, not the
/// packets.
fn idle_flow(x: &mut Exchange<'_>) {
    opened(x);
    let flow = x.flow();
    // REQ-5: at least 2 minutes; REQ-6: outbound renews.
    x.pass(secs(119));
    x.expect_events(&[]);
    let sent = x.scene.tx(flow, b"answer");
    x.settle();
    x.require(sent == Ok(6), format!("the answer taken; {sent:?}"));
    x.pass(secs(119));
    x.expect_events(&[]);
    x.inject(datagram(x, b""));
    let delivered = x.datagrams(flow);
    x.require(
        delivered == [b""],
        format!("an empty datagram; {delivered:?}"),
    );
    x.ignore_sent();
    x.app_sends(b"");
    let [(_, empty)] = &x.packets_for(secs(0))[..] else {
        x.fail("expected one empty datagram");
    };
    x.require(empty.clone().udp().payload.is_empty(), "an empty datagram");

    // REQ-8: the peer hears another port of the same host (endpoint-independent)…
    let other = x.family.local(54);
    let sent = x.scene.tx_from(flow, other, b"other");
    x.settle();
    x.require(sent == Ok(5), format!("from another port; {sent:?}"));
    let [(_, heard)] = &x.packets_for(secs(0))[..] else {
        x.fail("expected one datagram from another port");
    };
    let heard = heard.clone().udp();
    x.require(
        (heard.from, heard.to) == (other, x.family.peer(5000)),
        "both ends",
    );
    // … and a second port of the peer is a flow of its own.
    let second = craft::udp(x.family.peer(5001), x.family.local(53), b"second");
    x.inject(second);
    let (another, _) = x.expect_flow();
    x.require(another != flow, "another flow");
    let delivered = x.datagrams(another);
    x.require(delivered == [b"second"], "its datagram");
    x.pass(secs(400));
    x.expect_closed(CloseReason::TimedOut(Timer::Idle));
}
