//! Good clients: each connects, sends at 64 kB/s what an echo returns, and closes.

use std::time::Duration;

use l3l4_tests::craft::FAMILIES;
use l3l4_tests::random::Random;
use l3l4_tests::world::World;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

/// The tick of the crowd.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Bytes that a client sends in a tick.
const PACE: usize = 64;

/// Good clients of one [`World`].
#[derive(Debug)]
pub(crate) struct Crowd {
    clients: Vec<Client>,
    length: usize,
}

#[derive(Debug)]
struct Client {
    handle: SocketHandle,
    data: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    closing: bool,
}

impl Crowd {
    /// Clients that send `length` bytes each.
    pub(crate) fn new(length: usize) -> Self {
        Self {
            clients: Vec::new(),
            length,
        }
    }

    /// One more begins to connect, to the families in turn.
    pub(crate) fn join(&mut self, world: &mut World<'_>) {
        let number = self.clients.len();
        let to = FAMILIES[number % 2].local(7);
        self.clients.push(Client {
            handle: world.client.connect(to),
            data: Random::new(number as u64).bytes(self.length),
            sent: 0,
            received: Vec::new(),
            closing: false,
        });
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self, world: &mut World<'_>) {
        world.run_for(TICK);
        for client in &mut self.clients {
            client.act(world);
        }
    }

    /// Lets time pass until all have their data back and are closed.
    pub(crate) fn finish(&mut self, world: &mut World<'_>, limit: Duration) {
        let end = world.scene.now + limit;
        while !self.clients.iter().all(|client| client.is_done(world)) {
            let states: Vec<_> = self.clients.iter().map(|it| it.state(world)).collect();
            assert!(
                world.scene.now < end,
                "good clients do not finish: {states:?}"
            );
            self.tick(world);
        }
    }
}

impl Client {
    fn act(&mut self, world: &mut World<'_>) {
        let end = (self.sent + PACE).min(self.data.len());
        self.sent += world.client.send(self.handle, &self.data[self.sent..end]);
        let received = world.client.receive(self.handle);
        let before = self.received.len();
        self.received.extend(received);
        assert_eq!(
            self.received[before..],
            self.data[before..self.received.len()],
            "its own data comes back"
        );
        if self.received.len() == self.data.len() && !self.closing {
            self.closing = true;
            world.client.socket(self.handle).close();
        }
    }

    /// Its FIN was acknowledged and the echo's came: an end in order.
    fn is_done(&self, world: &mut World<'_>) -> bool {
        let state = world.client.socket(self.handle).state();
        self.closing && matches!(state, tcp::State::TimeWait | tcp::State::Closed)
    }

    fn state(&self, world: &mut World<'_>) -> (tcp::State, usize) {
        let state = world.client.socket(self.handle).state();
        (state, self.received.len())
    }
}
