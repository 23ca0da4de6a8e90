//! An echo server (RFC 862) with half-close.

use std::io::copy;
use std::net::{Shutdown, SocketAddr};

use crate::world::{Family, World};

/// Serves at a free port.
pub(crate) fn serve(world: &World, family: Family) -> SocketAddr {
    let (listener, address) = world.listen(family);
    super::serve(listener, |stream| {
        let _ = copy(&mut &stream, &mut &stream);
        let _ = stream.shutdown(Shutdown::Write);
    });
    address
}
