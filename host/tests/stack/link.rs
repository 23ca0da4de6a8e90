//! Two stacks and the link between them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use l3l4_host::stack::{Builder, ChannelDevice, Incoming, IncomingTcp, Stack, TcpStream};
use l3l4_host::{Engine, FlowOptions};
use tokio::sync::mpsc;

pub(crate) const CLIENT: &str = "10.0.0.1:40000";
pub(crate) const SERVER: &str = "10.9.9.9:80";
/// Packets that the link holds, each way.
const PACKETS: usize = 256;

/// Runs a story on two threads, and fails when it hangs.
pub(crate) fn run(story: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    run_on(runtime.worker_threads(2), story);
}

/// As `run`, on one thread: a driver has its turn when no other task has anything to do.
pub(crate) fn run_on_one_thread(story: impl Future<Output = ()>) {
    run_on(&mut tokio::runtime::Builder::new_current_thread(), story);
}

fn run_on(runtime: &mut tokio::runtime::Builder, story: impl Future<Output = ()>) {
    let runtime = runtime.enable_all().build();
    runtime.unwrap().block_on(async {
        let told = tokio::time::timeout(Duration::from_secs(60), story).await;
        assert!(told.is_ok(), "the story hangs");
    });
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A client's stack and a server's.
pub(crate) fn pair() -> (Stack, Stack) {
    pair_of(Stack::builder(), Stack::builder())
}

pub(crate) fn pair_of(client: Builder, server: Builder) -> (Stack, Stack) {
    let (near, far) = link(65_535);
    (client.start(near).unwrap(), server.start(far).unwrap())
}

pub(crate) fn link(mtu: usize) -> (ChannelDevice, ChannelDevice) {
    link_of(PACKETS, mtu)
}

/// A link that holds so many packets each way.
pub(crate) fn link_of(packets: usize, mtu: usize) -> (ChannelDevice, ChannelDevice) {
    let (to_far, from_near) = mpsc::channel(packets);
    let (to_near, from_far) = mpsc::channel(packets);
    (
        ChannelDevice::new(from_far, to_far, mtu),
        ChannelDevice::new(from_near, to_near, mtu),
    )
}

/// An engine that never outwaits a test.
pub(crate) fn engine() -> l3l4_host::Builder {
    Engine::builder().mtu(1500)
}

pub(crate) async fn connect(client: &Stack) -> std::io::Result<TcpStream> {
    let (local, peer) = (address(CLIENT), address(SERVER));
    client.connect(local, peer, FlowOptions::default()).await
}

pub(crate) async fn incoming_tcp(server: &Stack) -> IncomingTcp {
    match server.accept().await.unwrap() {
        Incoming::Tcp(tcp) => tcp,
        other => panic!("{other:?}"),
    }
}

/// A connection, both its ends.
pub(crate) async fn connected(client: &Stack, server: &Stack) -> (TcpStream, TcpStream) {
    connected_from(client, server, address(CLIENT).port()).await
}

/// A connection from this port, both its ends.
pub(crate) async fn connected_from(
    client: &Stack,
    server: &Stack,
    port: u16,
) -> (TcpStream, TcpStream) {
    let local = SocketAddr::new(address(CLIENT).ip(), port);
    let open = client.connect(local, address(SERVER), FlowOptions::default());
    let accept = async { incoming_tcp(server).await.accept(FlowOptions::default()) };
    let (near, far) = tokio::join!(open, accept);
    (near.unwrap(), far)
}

/// Bytes whose place and flow show.
pub(crate) fn pattern(flow: usize, length: usize) -> Vec<u8> {
    let bytes = (0..length).map(|at| (at * 7 + at / 251 + flow).to_le_bytes()[0]);
    bytes.collect()
}
