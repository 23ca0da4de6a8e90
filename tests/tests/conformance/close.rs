//! Closing: both orders, TIME-WAIT, and what may be lost on the way (nothing).

use l3l4_engine::{CloseReason, Event, Timer};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, secs, stream};
use l3l4_tests::conformance::segment::{ack, data, fin, rst, seg, syn, syn_ack};
use l3l4_tests::wire::{ACK, FIN};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        55,
        "9293 3.6",
        "the peer closes, we answer and close: end of data, half-close, CLOSED",
        passive_close,
    ),
    Case::new(
        56,
        "9293 3.6, MUST-13",
        "we close: late data, FIN, FIN again, both at once, TIME-WAIT",
        active_close,
    ),
    Case::new(
        57,
        "1337, 1122 4.2.2.13",
        "TIME-WAIT: a RST is ignored, a new SYN above is answered",
        time_wait,
    ),
    Case::new(
        58,
        "9293 3.10.5",
        "11 B and FIN after our FIN: readable 12 s later",
        late_read,
    ),
    Case::new(
        60,
        "9293 3.6, Linux tcp_fin_timeout",
        "FIN-WAIT-2 and a silent peer: freed after 60 s",
        silent_after_fin,
    ),
];

fn passive_close(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(data(b"last").with(FIN));
    x.expect_delivered(b"last");
    x.expect_within(ms(500), ack().ack(6));
    x.expect_events(&[Event::PeerFinished]);
    x.talk.next = 6;
    x.app_sends(&stream(0, 1000));
    x.expect(seg(ACK).seq(1).payload(&stream(0, 1000)));
    x.inject(ack());
    x.app_finishes();
    x.expect(fin().seq(1001).ack(6));
    x.inject(ack());
    x.expect_closed(CloseReason::Finished);
    x.silence_for(secs(5));
    // CLOSED: nothing is remembered of the side that did not wait.
    x.inject(ack());
    x.expect(rst().seq(1002));
}

/// RFC 9293 MUST-13 asks for two MSL; its MSL of 2 minutes is "an engineering
/// choice" (3.4.2). Asked for here is what Linux keeps, 60 s.
fn active_close(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_finishes();
    x.expect(fin().seq(1).ack(1));
    x.inject(ack());
    x.inject(data(b"late"));
    x.expect_delivered(b"late");
    x.expect_within(ms(500), ack().seq(2).ack(5));
    x.inject(fin());
    x.expect(ack().seq(2).ack(6));
    x.expect_events(&[Event::PeerFinished, Event::Closed(CloseReason::Finished)]);
    x.pass(secs(1));
    x.inject(fin().seq(5));
    x.expect(ack().seq(2).ack(6));
    // The FIN restarted the wait (RFC 9293 3.10.7.4), so this is within it.
    x.pass(secs(58));
    x.inject(fin().seq(5));
    x.expect(ack().seq(2).ack(6));

    x.turn_to(Talk::new(x.family, 40_001));
    x.handshake();
    x.app_finishes();
    x.expect(fin().seq(1).ack(1));
    x.inject(fin().ack(1));
    x.expect(seg(ACK).seq(2).ack(2));
    x.inject(ack().ack(2));
    x.expect_events(&[Event::PeerFinished, Event::Closed(CloseReason::Finished)]);
    x.pass(secs(30));
    x.inject(fin().seq(1).ack(2));
    x.expect(ack().seq(2).ack(2));
}

fn time_wait(x: &mut Exchange<'_>) {
    // Several tuples, since a number above another may be chance.
    for port in 40_000..40_008 {
        x.turn_to(Talk::new(x.family, port));
        x.handshake();
        x.app_finishes();
        x.expect(fin().seq(1));
        x.inject(fin().ack(2));
        x.expect(ack().seq(2).ack(2));
        // RFC 1337: neither an exact RST nor one in the window ends the wait.
        for seq in [2, 100] {
            x.inject(rst().seq(seq));
            x.silence();
        }
        x.inject(fin().seq(1).ack(2));
        x.expect(ack().seq(2).ack(2));
        x.pass(secs(1));
        let old = x.turn_to(Talk::new(x.family, port).isn(1000 + 100_000));
        x.inject(syn().mss(1400));
        x.expect(syn_ack().ack(1));
        x.inject(ack());
        x.inject(data(b"anew"));
        x.expect_delivered(b"anew");
        // On condition that our number is above the last of the old connection
        // (1122 4.2.2.13 (1); RFC 6528 3 has it so by its clock).
        let last = old.irs.map(|irs| irs.wrapping_add(2));
        let rise = x
            .talk
            .irs
            .zip(last)
            .map(|(new, last)| new.wrapping_sub(last));
        x.require(
            rise.is_some_and(|rise| rise < 1 << 31),
            "a first number above the last of the connection before",
        );
        x.pass(ms(500));
        x.ignore_sent();
    }
}

/// An acknowledged byte is never lost: it waits for as long as the application does.
fn late_read(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_finishes();
    x.expect(fin().seq(1));
    x.app_takes(0);
    x.inject(data(b"eleven byte").with(FIN).ack(2));
    x.expect_within(ms(500), seg(ACK).seq(2));
    x.pass(secs(12));
    x.expect_events(&[]);
    x.app_reads_all();
    x.expect_delivered(b"eleven byte");
    x.pass(ms(1));
    x.expect_events(&[Event::PeerFinished, Event::Closed(CloseReason::Finished)]);
}

fn silent_after_fin(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_finishes();
    x.expect(fin().seq(1));
    x.inject(ack());
    x.pass(secs(59));
    x.expect_events(&[]);
    x.pass(secs(11));
    x.expect_closed(CloseReason::TimedOut(Timer::FinWait));
    let flows = x.scene.counters().flows;
    x.require(flows == 0, format!("no flow; {flows}"));
}
