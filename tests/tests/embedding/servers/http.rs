//! An HTTP/1.1 server that keeps connections alive (RFC 9112).

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use l3l4_tests::random::Random;

use crate::world::{Family, World};

/// What `GET /bytes/NUMBER` gives.
pub(crate) fn body(length: usize) -> Vec<u8> {
    Random::new(80).bytes(length)
}

/// Serves at a free port of the host that [`NAME`](crate::world::NAME) is.
pub(crate) fn serve(world: &World, family: Family) -> SocketAddr {
    let (listener, address) = world.listen(family);
    super::serve(listener, |stream| {
        let _ = converse(stream);
    });
    address
}

/// Answers requests until the client closes, in order.
fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut requests = BufReader::with_capacity(1024, stream.try_clone()?);
    let mut line = String::new();
    while requests.read_line(&mut line)? > 0 {
        let length = line
            .strip_prefix("GET /bytes/")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        skip_headers(&mut requests)?;
        let (status, body) = match length {
            Some(length) => ("200 OK", body(length)),
            None => ("404 Not Found", Vec::new()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &body].concat())?;
        line.clear();
    }
    Ok(())
}

fn skip_headers(requests: &mut impl BufRead) -> std::io::Result<()> {
    let mut line = String::new();
    while requests.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(())
}
