//! Names behind addresses of a reserved pool, so that a flow can be dialled by the
//! name its peer meant.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

/// 198.18.0.0/15, for tests of devices (RFC 2544 C.2.2): no host on the Internet has
/// an address of it.
const POOL_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// A prefix of our own for local use (RFC 4193): `l3l4` after the `fd`.
const POOL_V6: Ipv6Addr = Ipv6Addr::new(0xfd6c, 0x336c, 0x3400, 0, 0, 0, 0, 0);
/// Addresses of the IPv4 pool, without the first and the last.
const SLOTS: u32 = (1 << 17) - 2;
/// Names remembered. A quarter of the pool, so that the address of a forgotten name
/// is not soon another's.
const NAMES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(SLOTS as usize / 4);

/// Which name stands behind which address.
#[derive(Debug)]
pub(super) struct Names {
    /// By slot, the least recently used forgotten first.
    by_slot: LruCache<u32, Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    /// The slot given last.
    last: u32,
}

impl Names {
    pub(super) fn new() -> Self {
        Self::with_capacity(NAMES)
    }

    fn with_capacity(names: NonZeroUsize) -> Self {
        Self {
            by_slot: LruCache::new(names),
            by_name: HashMap::new(),
            last: 0,
        }
    }

    /// The addresses that stand for a name, which is in lower case.
    pub(super) fn addresses(&mut self, name: &str) -> (Ipv4Addr, Ipv6Addr) {
        let slot = match self.by_name.get(name) {
            Some(slot) => {
                self.by_slot.promote(slot);
                *slot
            }
            None => self.remember(name.into()),
        };
        (
            Ipv4Addr::from_bits(POOL_V4.to_bits() + slot),
            Ipv6Addr::from_bits(POOL_V6.to_bits() + u128::from(slot)),
        )
    }

    fn remember(&mut self, name: Arc<str>) -> u32 {
        let slot = self.free_slot();
        if let Some((_, forgotten)) = self.by_slot.push(slot, Arc::clone(&name)) {
            self.by_name.remove(&forgotten);
        }
        self.by_name.insert(name, slot);
        slot
    }

    /// The next slot around the pool. There are more slots than names, so it ends.
    fn free_slot(&mut self) -> u32 {
        loop {
            self.last = self.last % SLOTS + 1;
            if !self.by_slot.contains(&self.last) {
                return self.last;
            }
        }
    }

    /// The name behind an address: `None` when it is not of the pool, `Some(None)`
    /// when it is, and the name was forgotten or never was.
    pub(super) fn name(&mut self, address: IpAddr) -> Option<Option<Arc<str>>> {
        let slot = slot_of(address)?;
        Some(self.by_slot.get(&slot).cloned())
    }
}

fn slot_of(address: IpAddr) -> Option<u32> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let slot = address.to_bits().checked_sub(POOL_V4.to_bits())?;
            (slot < 1 << 17).then_some(slot)
        }
        IpAddr::V6(address) => {
            let slot = address.to_bits().checked_sub(POOL_V6.to_bits())?;
            // The prefix has 64 bits; a slot beyond 32 is of the pool and nobody's.
            (slot < 1 << 64).then(|| u32::try_from(slot).unwrap_or(u32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroUsize;

    use super::Names;

    #[test]
    fn a_name_keeps_its_addresses_and_is_found_by_either() {
        let mut names = Names::new();
        let (v4, v6) = names.addresses("example.org");
        assert_eq!(v4.to_string(), "198.18.0.1");
        assert_eq!(v6.to_string(), "fd6c:336c:3400::1");
        assert_ne!(names.addresses("example.net").0, v4);
        assert_eq!(names.addresses("example.org"), (v4, v6));
        for address in [IpAddr::from(v4), IpAddr::from(v6)] {
            assert_eq!(names.name(address).unwrap().as_deref(), Some("example.org"));
        }
    }

    #[test]
    fn an_address_of_the_pool_without_a_name_is_told_from_one_outside() {
        let mut names = Names::new();
        for inside in ["198.18.0.1", "198.19.255.255", "fd6c:336c:3400::ffff:0:0"] {
            assert_eq!(names.name(inside.parse().unwrap()), Some(None), "{inside}");
        }
        for outside in ["198.17.255.255", "198.20.0.0", "fd6c:336c:3400:1::", "::"] {
            assert_eq!(names.name(outside.parse().unwrap()), None, "{outside}");
        }
    }

    #[test]
    fn the_least_recently_used_name_is_forgotten_and_its_address_not_given_on() {
        let mut names = Names::with_capacity(NonZeroUsize::new(2).unwrap());
        let a = IpAddr::from(names.addresses("a").0);
        let b = IpAddr::from(names.addresses("b").0);
        names.name(a);
        let c = IpAddr::from(names.addresses("c").0);
        assert_eq!(names.name(a).unwrap().as_deref(), Some("a"));
        assert_eq!(names.name(b), Some(None));
        assert_eq!(names.name(c).unwrap().as_deref(), Some("c"));
        assert_ne!(b, c);
        assert_eq!(names.by_name.len(), 2);
    }

    #[test]
    fn the_pool_goes_round_without_giving_an_address_twice() {
        let mut names = Names::with_capacity(NonZeroUsize::new(4).unwrap());
        let first = names.addresses("kept").0;
        for number in 0..super::SLOTS + 10 {
            assert_ne!(names.addresses(&number.to_string()).0, first);
            assert_eq!(names.addresses("kept").0, first);
        }
    }
}
