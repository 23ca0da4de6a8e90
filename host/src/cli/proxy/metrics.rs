//! `--metrics`: counters for Prometheus, over HTTP.
//!
//! One answer to one request, and the connection is closed: a web server would be the
//! largest dependency of the program.

use std::io;
use std::time::Duration;

use l3l4_host::proxy::Proxy;
use l3l4_host::stack::Stack;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest head of a request that is read.
const MAX_HEAD: usize = 8 * 1024;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers one client after the other, for ever.
pub(super) async fn serve(listener: TcpListener, stack: Stack, proxy: Proxy) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // For want of descriptors: there may be some again.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let answered = tokio::time::timeout(PATIENCE, answer(client, &stack, &proxy)).await;
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "a client of the metrics was lost");
        }
    }
}

async fn answer(mut client: TcpStream, stack: &Stack, proxy: &Proxy) -> io::Result<()> {
    let response = match wanted(&mut client).await? {
        true => {
            let stack = stack.prometheus().await?;
            response("200 OK", &joined(&stack, &proxy.totals().prometheus()))
        }
        false => response("404 Not Found", "the counters are at /metrics\n"),
    };
    client.write_all(response.as_bytes()).await?;
    client.shutdown().await
}

/// Whether the request is for the counters.
async fn wanted(client: &mut TcpStream) -> io::Result<bool> {
    let mut received = Vec::new();
    while received.len() < MAX_HEAD {
        if client.read_buf(&mut received).await? == 0 {
            break;
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&received) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => {
                let path = request.path.unwrap_or_default();
                let path = path.split('?').next();
                return Ok(request.method == Some("GET") && path == Some("/metrics"));
            }
            Err(_) => break,
        }
    }
    Ok(false)
}

/// Two texts of OpenMetrics as one: the mark of the end stands once.
fn joined(first: &str, second: &str) -> String {
    let first = first.strip_suffix("# EOF\n").unwrap_or(first);
    format!("{first}{second}")
}

fn response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::{joined, response};

    #[test]
    fn two_texts_have_one_end() {
        let text = joined("a 1\n# EOF\n", "b 2\n# EOF\n");
        assert_eq!(text, "a 1\nb 2\n# EOF\n");
    }

    #[test]
    fn a_response_says_how_long_it_is() {
        let response = response("200 OK", "a 1\n");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(response.contains("Content-Length: 4\r\n"));
        assert!(response.ends_with("\r\n\r\na 1\n"));
    }
}
