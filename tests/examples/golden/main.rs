//! Makes the captures of `tests/golden`, from traffic of the kernel over TUN devices
//! in a namespace of its own:
//!
//! ```sh
//! cargo run -p l3l4-tests --example golden -- tests/golden
//! ```
//!
//! The times and the kernel's choices are of the run, so the files differ each time:
//! make their transcripts anew as well, and read both before they are committed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a tool of the developers', which fails by panicking"
)]

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod shape;

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("TUN devices and namespaces are of Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    use l3l4_tests::craft::Family::{V4, V6};
    use link::{CLEAN, lossy};
    use session::Session;
    use shape::{Frame, Shape};

    let directory = std::env::args().nth(1).expect("the directory to write to");
    l3l4_host::netns::enter().expect("a namespace");
    let pcap = |big, nanoseconds, frame| Shape::Pcap {
        big,
        nanoseconds,
        frame,
    };
    let make = |name: &str, session: Session, shape: Shape, clients: &dyn Fn()| {
        let packets = session.run(clients);
        let file = shape.encode(&packets);
        assert!(file.len() <= 60_000, "{name} is {} bytes", file.len());
        std::fs::write(format!("{directory}/{name}"), &file).expect("writes");
        println!("{name}: {} packets, {} bytes", packets.len(), file.len());
    };

    make(
        "tcp-ipv4.pcapng",
        Session::new(1500, CLEAN),
        Shape::Pcapng,
        &|| {
            clients::tcp_transfer(V4, 15_000, None);
        },
    );
    let ethernet = pcap(false, false, Frame::Ethernet(Some(5)));
    make(
        "tcp-ipv6.pcap",
        Session::new(1500, CLEAN),
        ethernet,
        &|| {
            clients::tcp_transfer(V6, 15_000, None);
        },
    );
    make(
        "loss-ipv4.pcapng",
        Session::new(1500, lossy(3)),
        Shape::Pcapng,
        &|| {
            clients::tcp_transfer(V4, 16_000, Some(536));
        },
    );
    let sll2 = pcap(true, true, Frame::Cooked2);
    make(
        "loss-ipv6.pcap",
        Session::new(1500, lossy(3)),
        sll2,
        &|| {
            clients::tcp_transfer(V6, 16_000, Some(536));
        },
    );
    let sll = pcap(false, true, Frame::Cooked);
    make("reset.pcap", Session::new(1500, CLEAN), sll, &|| {
        clients::tcp_reset(V4);
        clients::tcp_reset(V6);
    });
    let raw = pcap(true, false, Frame::Raw);
    make("udp.pcap", Session::new(65_535, CLEAN), raw, &|| {
        clients::udp_sizes(V4, &[0, 1, 512, 9000]);
        clients::udp_sizes(V6, &[0, 1, 512, 9000]);
    });
    let ethernet = pcap(false, true, Frame::Ethernet(None));
    make(
        "fragments.pcap",
        Session::new(1500, CLEAN),
        ethernet,
        &|| {
            clients::udp_unanswered(V4, 4000);
            clients::udp_unanswered(V6, 4000);
            clients::udp_sizes(V4, &[100]);
            clients::udp_sizes(V6, &[100]);
        },
    );
    let null = pcap(false, false, Frame::Null);
    make("icmp.pcap", Session::new(1500, CLEAN), null, &|| {
        for family in [V4, V6] {
            clients::ping(family, &[0, 56, 1400]);
            clients::closed_port(family);
        }
    });
    let hostile = Session::new(1500, CLEAN).with(hostile::packets());
    make("hostile.pcapng", hostile, Shape::Pcapng, &|| {
        for family in [V4, V6] {
            clients::tcp_requests(family, 30);
            clients::udp_sizes(family, &[64, 64, 64]);
        }
    });
}
