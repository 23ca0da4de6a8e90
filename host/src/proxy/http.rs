//! HTTP CONNECT (RFC 9110 9.3.6), the client's side.
//!
//! One request and one head of a response: httparse reads it, a whole client would
//! bring its own connections, pools and bodies, none of which fit a tunnel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::DialError;
use super::target::Target;
use super::upstream::Credentials;

/// Longest head of a response. Servers send some hundred bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Asks for a tunnel. What the destination said in the same breath is returned: it
/// comes before all that is read from the stream afterwards.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: Option<&Credentials>,
    target: &Target,
) -> Result<Vec<u8>, DialError> {
    let lost = |error: std::io::Error| DialError::Upstream(error.to_string());
    let request = request(credentials, target);
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    let mut received = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut received).await.map_err(lost)? == 0 {
            return Err(upstream("the HTTP proxy hung up"));
        }
        if let Some(head) = read_head(&received)? {
            return Ok(received.split_off(head));
        }
        if received.len() > MAX_HEAD {
            return Err(upstream("the HTTP proxy answers without end"));
        }
    }
}

fn request(credentials: Option<&Credentials>, target: &Target) -> String {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        // RFC 7617 2.
        let token = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {token}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// The length of the head of a response that grants the tunnel; `None` while it is
/// not complete.
fn read_head(received: &[u8]) -> Result<Option<usize>, DialError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(received);
    let head = match parsed.map_err(|_| upstream("this is no HTTP proxy"))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(head) => head,
    };
    let proxy_status = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("proxy-status"))
        .and_then(|header| std::str::from_utf8(header.value).ok());
    match response.code {
        Some(200..=299) => Ok(Some(head)),
        code => Err(understand(code.unwrap_or_default(), proxy_status)),
    }
}

/// What a response that grants no tunnel says of the destination: in the word of RFC
/// 9209 2.3 where there is one, else by its code.
fn understand(code: u16, proxy_status: Option<&str>) -> DialError {
    let word = proxy_status
        .and_then(|status| status.split_once("error="))
        .map(|(_, rest)| rest.split([';', ',', ' ']).next().unwrap_or_default());
    match word {
        Some("connection_refused") => return DialError::Refused,
        Some("destination_ip_unroutable") => return DialError::NetworkUnreachable,
        Some("destination_unavailable" | "destination_not_found" | "dns_error") => {
            return DialError::HostUnreachable;
        }
        Some("destination_ip_prohibited" | "http_request_denied") => return DialError::Prohibited,
        Some("connection_timeout" | "dns_timeout") => return DialError::NoAnswer,
        Some(_) | None => {}
    }
    match code {
        // The proxy did not hear from the destination in time (RFC 9110 15.6.5).
        504 => DialError::NoAnswer,
        502 | 503 => DialError::HostUnreachable,
        403 => DialError::Prohibited,
        407 => upstream("the HTTP proxy wants user and password (they go into --proxy)"),
        code => DialError::Upstream(format!("the HTTP proxy answered {code}")),
    }
}

fn upstream(why: &str) -> DialError {
    DialError::Upstream(why.to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{Credentials, DialError, Target, connect, request, understand};
    use crate::Refusal;

    /// What comes of an answer that arrives in these pieces.
    fn answered(pieces: &[&[u8]]) -> Result<Vec<u8>, DialError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            // One byte more than the head, so that each piece is read by itself.
            let (mut client, mut server) = duplex(64 * 1024);
            let serve = async {
                let mut asked = [0; 512];
                let length = server.read(&mut asked).await.unwrap();
                assert!(asked[..length].starts_with(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n"));
                for piece in pieces {
                    server.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                drop(server);
            };
            let target = Target::Address("192.0.2.1:443".parse().unwrap());
            tokio::join!(connect(&mut client, None, &target), serve).0
        })
    }

    #[test]
    fn a_tunnel_is_asked_for_by_address_or_name() {
        let credentials: Credentials = "me:secret".parse().unwrap();
        let name = Target::Name("example.org".into(), 443);
        assert_eq!(
            request(Some(&credentials), &name),
            "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\
             Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
        );
        let address = Target::Address("[2001:db8::1]:80".parse().unwrap());
        assert!(request(None, &address).starts_with("CONNECT [2001:db8::1]:80 HTTP/1.1\r\n"));
    }

    #[test]
    fn what_the_destination_says_at_once_is_kept() {
        let early = answered(&[
            b"HTTP/1.1 200 Connection ",
            b"established\r\n\r\nSSH-2.0-x\r\n",
        ]);
        assert_eq!(early, Ok(b"SSH-2.0-x\r\n".to_vec()));
        assert_eq!(
            answered(&[b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n"]),
            Ok(Vec::new())
        );
    }

    #[test]
    fn a_proxy_that_is_none_or_goes_is_the_upstreams_fault() {
        for pieces in [
            &[&b"SSH-2.0-OpenSSH_9.9\r\n"[..]][..],
            &[b"HTTP/1.1 200 OK\r\n"],
            &[b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 20_000]],
        ] {
            let error = answered(pieces).unwrap_err();
            assert_eq!(
                error.refusal(),
                Some(Refusal::NetworkUnreachable),
                "{error}"
            );
            assert!(matches!(error, DialError::Upstream(_)), "{error:?}");
        }
    }

    #[test]
    fn the_peer_is_told_what_the_proxy_was() {
        for (code, status, error) in [
            (403, None, DialError::Prohibited),
            (502, None, DialError::HostUnreachable),
            (504, None, DialError::NoAnswer),
            (
                502,
                Some("squid; error=connection_refused"),
                DialError::Refused,
            ),
            (
                502,
                Some("p; error=connection_timeout; x=1"),
                DialError::NoAnswer,
            ),
            (
                502,
                Some("p; error=destination_ip_unroutable"),
                DialError::NetworkUnreachable,
            ),
            (
                503,
                Some("p; error=something_new"),
                DialError::HostUnreachable,
            ),
        ] {
            assert_eq!(understand(code, status), error, "{code} {status:?}");
        }
    }
}
