//! Where names are, as this host's resolver says.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Look-ups at once. Each takes a thread for as long as the resolver does, which may be
/// half a minute (resolv.conf(5)); the runtime has 512 for all that blocks, and a queue
/// without bound before them. So many names of a server that is silent hold the others
/// up for as long, and what waits longer than the dialling may has no answer.
const MOST_LOOKUPS: usize = 64;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Looks names up, a bounded number at once.
#[derive(Debug)]
pub(super) struct Lookups {
    places: Arc<Semaphore>,
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST_LOOKUPS)),
        }
    }

    /// The addresses of a name, in the order in which they are to be tried. Dropped
    /// while it waits for its turn, nobody is asked.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let host = host.to_owned();
        let ask = move || {
            let found = (host, port).to_socket_addrs()?;
            Ok(found.take(MAX_ADDRESSES).collect())
        };
        self.in_turn(ask).await
    }

    /// A thread that blocks is not stopped by whoever waits for it no more: it keeps its
    /// place until it is done.
    async fn in_turn<R: Send + 'static>(
        &self,
        ask: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(io::Error::other)?;
        let asked = spawn_blocking(move || {
            let answer = ask();
            drop(place);
            answer
        });
        asked.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::{Lookups, MOST_LOOKUPS, SocketAddr};

    /// A resolver that answers nobody until it is told to.
    struct Stalled {
        asked: Arc<AtomicUsize>,
        gate: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
        open: Sender<()>,
    }

    impl Stalled {
        fn new() -> Self {
            let (open, gate) = channel();
            Self {
                asked: Arc::default(),
                gate: Arc::new(Mutex::new(gate)),
                open,
            }
        }

        fn ask(&self) -> impl FnOnce() -> io::Result<()> + Send + 'static + use<> {
            let (asked, gate) = (Arc::clone(&self.asked), Arc::clone(&self.gate));
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                // An error: it was opened for good.
                let _ = gate.lock().unwrap().recv();
                Ok(())
            }
        }
    }

    /// Of those who gave up the look-ups go on: the next wait, within their own time, and
    /// are answered when there are threads again.
    #[tokio::test]
    async fn look_ups_are_bounded_also_when_nobody_waits_for_them() {
        let (lookups, resolver) = (Lookups::new(), Stalled::new());
        let brief = Duration::from_millis(50);
        for _ in 0..MOST_LOOKUPS {
            assert!(
                timeout(brief / 10, lookups.in_turn(resolver.ask()))
                    .await
                    .is_err()
            );
        }
        for _ in 0..3 {
            assert!(
                timeout(brief, lookups.in_turn(resolver.ask()))
                    .await
                    .is_err()
            );
        }
        assert_eq!(resolver.asked.load(Ordering::Relaxed), MOST_LOOKUPS);
        drop(resolver.open);
        let last = timeout(Duration::from_secs(20), lookups.in_turn(|| Ok(7))).await;
        assert_eq!(last.expect("a turn").unwrap(), 7);
        assert_eq!(resolver.asked.load(Ordering::Relaxed), MOST_LOOKUPS);
    }

    #[tokio::test]
    async fn an_address_is_nobodys_to_look_up() {
        let (lookups, resolver) = (Lookups::new(), Stalled::new());
        for _ in 0..MOST_LOOKUPS {
            let asked = timeout(Duration::from_millis(5), lookups.in_turn(resolver.ask()));
            assert!(asked.await.is_err());
        }
        for address in ["192.0.2.1", "2001:db8::1"] {
            let found = lookups.addresses(address, 80).await.unwrap();
            assert_eq!(found, [SocketAddr::new(address.parse().unwrap(), 80)]);
        }
    }
}
