//! Through whom flows are dialled.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

/// Through whom flows are dialled: `direct`, `socks5://[USER:PASSWORD@]HOST:PORT`
/// or `http://[USER:PASSWORD@]HOST:PORT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// Nobody: this host's own sockets.
    #[default]
    Direct,
    /// A SOCKS5 server (RFC 1928): TCP by CONNECT, UDP by UDP ASSOCIATE.
    Socks5(Server),
    /// An HTTP proxy: TCP by CONNECT (RFC 9110 9.3.6), no UDP.
    Http(Server),
}

/// Where an upstream is, and how it knows us.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// Its address or name, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, if it asks for them.
    pub credentials: Option<Credentials>,
}

/// User and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password, which no log shows.
    pub password: String,
}

impl Upstream {
    /// Whether names may be given to it in place of addresses, so that it alone
    /// knows what addresses they have.
    #[must_use]
    pub fn resolves_names(&self) -> bool {
        *self != Self::Direct
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text may hold a password: no message repeats it.
        const WHAT: &str = "an upstream is direct, socks5://[USER:PASSWORD@]HOST:PORT or http://[USER:PASSWORD@]HOST:PORT";
        if text == "direct" {
            return Ok(Self::Direct);
        }
        let (scheme, rest) = text.split_once("://").ok_or(WHAT)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let server = Server::from_str(rest).map_err(|why| format!("{why}; {WHAT}"))?;
        match scheme {
            // `socks5h` is curl's word for names resolved by the server.
            "socks5" | "socks5h" => Ok(Self::Socks5(server)),
            "http" => Ok(Self::Http(server)),
            _ => Err(format!("{scheme}:// is not known; {WHAT}")),
        }
    }
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (credentials, place) = match text.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials.parse()?), place),
            None => (None, text),
        };
        let (host, port) = place.rsplit_once(':').ok_or("the port is missing")?;
        let port = port.parse().map_err(|_| "the port is no number")?;
        let inside = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match inside {
            Some(address) => address,
            None if host.contains([':', '/']) || host.is_empty() => {
                return Err("the host is no address or name (IPv6 goes in brackets)");
            }
            None => host,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            credentials,
        })
    }
}

impl FromStr for Credentials {
    type Err = &'static str;

    /// `USER:PASSWORD`, with `%3A` for a colon and so on (RFC 3986 3.2.1). RFC 1929 2
    /// has one byte for each length.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map_err(|_| "user or password is not UTF-8")
        };
        let (user, password) = (decode(user)?.into_owned(), decode(password)?.into_owned());
        if user.is_empty() || user.len() > 255 || password.len() > 255 {
            return Err("user and password have 1 to 255 bytes each");
        }
        Ok(Self { user, password })
    }
}

/// As it is written on the command line, without the password.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Socks5(server) => write!(f, "socks5://{server}"),
            Self::Http(server) => write!(f, "http://{server}"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:…", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::Upstream;

    #[test]
    fn an_upstream_reads_as_it_prints_but_for_the_password() {
        for (text, printed) in [
            ("direct", "direct"),
            ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080"),
            (
                "socks5h://proxy.example:1080/",
                "socks5://proxy.example:1080",
            ),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://me:se%3Acret@127.0.0.1:8", "http://127.0.0.1:8"),
        ] {
            assert_eq!(text.parse::<Upstream>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn credentials_are_decoded_and_no_form_shows_the_password() {
        let upstream: Upstream = "http://me:se%3Acret@127.0.0.1:8".parse().unwrap();
        assert!(!format!("{upstream:?}{upstream}").contains("cret"));
        let Upstream::Http(server) = upstream else {
            panic!("{upstream}")
        };
        let credentials = server.credentials.unwrap();
        assert_eq!(credentials.user, "me");
        assert_eq!(credentials.password, "se:cret");
        assert!(!format!("{credentials:?}").contains("cret"));
    }

    #[test]
    fn what_is_no_upstream_is_refused_without_repeating_it() {
        for wrong in [
            "",
            "socks5",
            "socks4://127.0.0.1:1",
            "socks5://127.0.0.1",
            "socks5://127.0.0.1:x",
            "http://::1:80",
            "http://:80",
            "http://me:sesame@:80",
            "http://:sesame@127.0.0.1:80",
        ] {
            let error = wrong.parse::<Upstream>().unwrap_err();
            assert!(error.contains("socks5://[USER"), "{wrong}: {error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
