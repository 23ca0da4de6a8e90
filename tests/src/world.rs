//! A small world in virtual time: a smoltcp client, a path with a delay, and the
//! device under test with an application behind it. Time jumps to the next event.
//! The same with all that can go wrong is [`sim`](crate::sim).

use std::time::Duration;

use l3l4_engine::Instant;

use crate::app::{App, Application};
use crate::craft::FAMILIES;
use crate::link::{Impairments, Link};
use crate::scene::Scene;
use crate::stack::{Settings, Stack};

/// Everything of one simulation.
pub struct World<'a> {
    /// The device under test.
    pub scene: &'a mut Scene,
    /// What runs behind it.
    pub app: Application,
    /// The far end.
    pub client: Stack,
    to_client: Link,
    to_engine: Link,
}

impl<'a> World<'a> {
    /// A client 10 ms away from a device under test with this application.
    pub fn new(scene: &'a mut Scene, app: App) -> Self {
        let mtu = scene.host().mtu;
        let client = Stack::new(
            &Settings {
                addresses: FAMILIES.map(|family| family.peer(1).ip()),
                mtu,
                buffer: 65_535,
                uncontrolled: false,
                seed: 1,
            },
            scene.now,
        );
        let link = || Link::new(Impairments::none(Duration::from_millis(10)), 0);
        Self {
            scene,
            app: Application::new(app),
            client,
            to_client: link(),
            to_engine: link(),
        }
    }

    /// Runs until `done` or until `limit` has passed, which is a failure.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.scene.now + limit;
        while !done(self) {
            let next = self.step();
            if done(self) {
                break;
            }
            let Some(next) = next.filter(|next| *next <= end) else {
                panic!(
                    "not done in {limit:?}\n{}",
                    self.scene.host().trace.tail(40)
                );
            };
            self.scene.now = next;
        }
    }

    /// Runs until nothing is left to happen, or `limit` has passed.
    pub fn run_for(&mut self, limit: Duration) {
        let end = self.scene.now + limit;
        while let Some(next) = self.step().filter(|next| *next <= end) {
            self.scene.now = next;
        }
        self.scene.now = end;
    }

    /// All that happens at this instant; then the instant of the next event.
    fn step(&mut self) -> Option<Instant> {
        let now = self.scene.now;
        self.client.arrive(self.to_client.arrived(now));
        let batch = self.to_engine.arrived(now);
        if !batch.is_empty() {
            self.scene.rx_batch(&batch);
        }
        if self.scene.deadline.is_some_and(|deadline| deadline <= now) {
            self.scene.poll();
        }
        self.app.react(self.scene);
        // A device that refused packets has room again at once.
        while self.scene.host().packets_kept() && self.scene.host().device_room != Some(0) {
            self.scene.poll();
            self.app.react(self.scene);
        }
        self.client.act(now);
        for packet in self.client.sent() {
            self.to_engine.send(now, packet);
        }
        for packet in std::mem::take(&mut self.scene.host().sent) {
            self.to_client.send(now, packet);
        }
        let times = [
            self.to_client.next(),
            self.to_engine.next(),
            self.scene.deadline,
            self.client.next(now),
        ];
        let next = times.into_iter().flatten().min()?;
        // A peer that wants to act at once acts a microsecond later, its tick.
        Some(next.max(now + Duration::from_micros(1)))
    }
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World of {:?}", self.scene)
    }
}
