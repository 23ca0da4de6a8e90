//! Segments that belong to no flow, and addresses that none can have.

use std::net::{IpAddr, SocketAddr};

use l3l4_engine::{Refusal, Verdict};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk};
use l3l4_tests::conformance::segment::{ack, rst, rst_ack, seg, syn, syn_ack};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::wire::{ACK, FIN, PSH, RST, SYN, URG};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        6,
        "9293 3.10.7.2",
        "an ACK to no flow: RST at its number, no state",
        ack_to_no_flow,
    ),
    Case::new(
        7,
        "9293 3.10.7.1",
        "a refused SYN: RST with ACK of it; a RST is never answered",
        refused_syn,
    ),
    Case::new(
        8,
        "9293 3.10.7.1",
        "FIN and 2 B without ACK to no flow: RST with ACK of all three",
        fin_without_ack,
    ),
    Case::new(
        11,
        "9293 MUST-57, 1122 4.2.3.10",
        "a SYN to a broadcast or multicast address: silence, no state",
        to_a_crowd,
    ),
    Case::new(
        12,
        "9293 MUST-63, 1122 3.2.1.3, 4291 2.5",
        "a SYN from an address that no host can have: silence",
        from_nobody,
    ),
    Case::new(
        13,
        "CERT CA-1997-28, 9293 3.10.7",
        "a SYN from its own destination (land): silence, no loop",
        land,
    ),
    Case::new(
        14,
        "9293 3.10.7.2",
        "null, FIN, SYN+FIN, SYN+RST, Xmas, all flags: no flow, no crash",
        odd_flags,
    ),
];

fn ack_to_no_flow(x: &mut Exchange<'_>) {
    x.inject(seg(ACK).seq(1).ack(77));
    x.expect(rst().seq(77).len(0));
    x.inject(seg(ACK).seq(1).ack(77).payload(b"data"));
    x.expect(rst().seq(77).len(0));
    x.expect_no_flow();
    let flows = x.scene.counters().flows;
    x.require(flows == 0, "no state");
}

fn refused_syn(x: &mut Exchange<'_>) {
    x.verdict_on_new(Verdict::Refuse(Refusal::Reset));
    x.inject(syn().mss(1400));
    x.expect(rst_ack().seq(0).ack(1));
    x.expect_flow();
    for flags in [RST, RST | ACK] {
        x.inject(seg(flags).seq(1).ack(1));
        x.silence();
    }
    x.expect_no_flow();
}

fn fin_without_ack(x: &mut Exchange<'_>) {
    x.inject(seg(FIN).seq(0).payload(b"ab"));
    x.expect(rst_ack().seq(0).ack(3));
    x.expect_no_flow();
}

/// The broadcast address of a subnet is not seen here: an engine that speaks for
/// every address has no netmask to know it by.
fn to_a_crowd(x: &mut Exchange<'_>) {
    let crowds: &[&str] = match x.family {
        Family::V4 => &["255.255.255.255", "224.0.0.1", "239.1.2.3"],
        Family::V6 => &["ff02::1", "ff05::2", "ff0e::1"],
    };
    for crowd in crowds {
        let mut talk = Talk::new(x.family, 40_000);
        talk.local.set_ip(address(crowd));
        x.turn_to(talk);
        x.inject(syn().mss(1400));
        x.silence();
        x.expect_no_flow();
    }
}

fn from_nobody(x: &mut Exchange<'_>) {
    let nobodies: &[&str] = match x.family {
        Family::V4 => &[
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "240.0.0.1",
            "0.0.0.0",
        ],
        Family::V6 => &["ff02::1", "ff0e::5", "::1", "::"],
    };
    for nobody in nobodies {
        let mut talk = Talk::new(x.family, 40_000);
        talk.peer.set_ip(address(nobody));
        x.turn_to(talk);
        x.inject(syn().mss(1400));
        x.silence();
        x.expect_no_flow();
    }
}

fn land(x: &mut Exchange<'_>) {
    let end = SocketAddr::new(x.family.local(7).ip(), 7);
    let mut peer = Peer::new(x.family);
    (peer.local, peer.peer) = (end, end);
    x.inject(Vec::from(peer.syn().mss(1400)));
    x.silence();
    x.expect_no_flow();
    x.inject(Vec::from(peer.ack()));
    x.silence();
}

/// RFC 9293 3.10.7.2 would let SYN+FIN open a connection. The table takes it for a
/// scan, as Linux does.
fn odd_flags(x: &mut Exchange<'_>) {
    let odd = [0, FIN, SYN | FIN, SYN | RST, FIN | PSH | URG, 0xff];
    for flags in odd {
        x.inject(seg(flags).seq(0).ack(0));
        let answers = x.segments();
        let once = answers.len() <= 1 && answers.iter().all(|answer| answer.has(RST));
        x.require(once, format!("at most a RST to flags {flags:#x}"));
        let quiet = flags & RST == 0 || answers.is_empty();
        x.require(quiet, "no answer to a RST");
        x.expect_no_flow();
    }
    x.inject(syn().mss(1400));
    x.expect(syn_ack().ack(1));
    x.inject(ack());
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
