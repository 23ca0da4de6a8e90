//! What the programs of the stories talk to.

pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod http;
pub(crate) mod system;
pub(crate) mod upstream;

use std::net::{TcpListener, TcpStream};
use std::thread;

/// Serves every connection by a thread of its own.
pub(crate) fn serve(listener: TcpListener, server: impl Fn(TcpStream) + Send + Clone + 'static) {
    spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let server = server.clone();
            spawn(move || server(stream));
        }
    });
}

/// A thread with a small stack: there are thousands.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new().stack_size(128 << 10).spawn(work);
    started.expect("a thread");
}
