//! The way out of a network that lets nobody out directly: through an HTTP proxy (`CONNECT`) or a SOCKS5 proxy.
//!
//! What is spoken with a proxy is in `connect` and `socks`; this file is what they share, and [`Egress`] says for
//! which gateways a proxy is used. The proxy resolves the gateway's name in every case.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;

use crate::transport::authority;
use except::Exceptions;

mod connect;
mod except;
mod socks;

/// How long a proxy may take to connect to the gateway, beside the time that TCP to the proxy itself takes.
const OPEN_TIMEOUT: Duration = Duration::from_secs(6);
/// What the bytes of a SOCKS5 login have as their length.
const MAX_LOGIN: usize = 255;

/// A proxy. Prints without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `CONNECT` in HTTP/1.1.
    Http,
    Socks5,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

/// Why a text is no proxy. Never holds the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// Another scheme.
    #[error("a proxy is http://, socks5:// or socks5h://")]
    Scheme,
    /// TLS to the proxy itself.
    #[error("TLS to the proxy is not spoken; the session inside is encrypted in any case, so write http://")]
    Https,
    /// No host, or one that cannot be.
    #[error("the proxy's host is missing or not a host")]
    Host,
    /// No port from 1 to 65535.
    #[error("the proxy's port is not a port (1 to 65535)")]
    Port,
    /// Something behind the port.
    #[error("a proxy has no path")]
    Path,
    /// A user or password that cannot be sent.
    #[error("the proxy's user or password is empty, too long, or cannot be sent")]
    Login,
}

/// What a proxy did instead of connecting.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection to it broke.
    #[error("it ended the connection")]
    Broken(#[source] io::Error),
    /// It said nothing.
    #[error("it did not answer within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
    /// It speaks something else.
    #[error("what it answered is not {0}; is it another kind of proxy?")]
    Garbage(&'static str),
    /// 407, or a SOCKS5 login without success.
    #[error("it wants a user and password, and was given {}", if *.given { "wrong ones" } else { "none" })]
    Login {
        /// Whether there were any to give.
        given: bool,
    },
    /// Another status than 2xx.
    #[error("it answered {0}")]
    Status(u16),
    /// A refusal of SOCKS5.
    #[error("it refused: {} (SOCKS5 code {code})", socks::meaning(*.code))]
    Socks {
        /// Its code.
        code: u8,
    },
    /// The gateway's name is too long for SOCKS5.
    #[error("the gateway's name is longer than SOCKS5 can say")]
    Name,
}

impl From<io::Error> for ProxyError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Proxy {
    /// Where the proxy listens.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where the proxy listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.login.as_ref().is_some_and(|login| !login.password.is_empty())
    }

    /// The same proxy with this password for its user.
    ///
    /// # Errors
    /// It names no user, or the password cannot be sent.
    pub fn with_password(mut self, password: &str) -> Result<Self, ProxyUrlError> {
        let user = self.login.take().ok_or(ProxyUrlError::Login)?.user;
        self.login = Some(Login::new(user, password.to_owned())?);
        Ok(self)
    }

    /// Has the proxy connect to `host:port`. What comes next on `tcp` comes from there. Not cancel safe.
    ///
    /// # Errors
    /// [`ProxyError`] says what it did instead.
    pub(crate) async fn open(&self, tcp: &mut TcpStream, host: &str, port: u16) -> Result<(), ProxyError> {
        let opening = async {
            match self.kind {
                Kind::Http => connect::open(tcp, &authority(host, port), self.login.as_ref()).await,
                Kind::Socks5 => socks::open(tcp, host, port, self.login.as_ref()).await,
            }
        };
        tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or(Err(ProxyError::Timeout))
    }
}

impl Login {
    fn new(user: String, password: String) -> Result<Self, ProxyUrlError> {
        let fits = |text: &str| text.len() <= MAX_LOGIN && !text.chars().any(char::is_control);
        // A colon in the user would end it in the eyes of an HTTP proxy.
        if user.is_empty() || user.contains(':') || !fits(&user) || !fits(&password) {
            return Err(ProxyUrlError::Login);
        }
        Ok(Self { user, password })
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    /// `http://[user[:password]@]host[:port]`, `socks5://…` or `socks5h://…`; without a scheme it is an HTTP proxy.
    /// User and password may be percent-encoded. The port is 80, or 1080 for SOCKS5.
    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" | "socks" => (Kind::Socks5, 1080),
            "https" => return Err(ProxyUrlError::Https),
            _ => return Err(ProxyUrlError::Scheme),
        };
        // A password may hold anything but the last `@`.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(ProxyUrlError::Path);
        }
        let (host, port) = host_and_port(rest, default_port)?;
        Ok(Self { kind, host, port, login: login.map(read_login).transpose()? })
    }
}

fn read_login(text: &str) -> Result<Login, ProxyUrlError> {
    let decode = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_not_utf8| ProxyUrlError::Login)
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Login::new(decode(user)?, decode(password)?)
}

fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), ProxyUrlError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(ProxyUrlError::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_not_ipv6| ProxyUrlError::Host)?;
        let port =
            if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(ProxyUrlError::Port)?) };
        (host, port)
    } else {
        text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(ProxyUrlError::Host);
    }
    let port = match port {
        None => default_port,
        Some(digits) => digits.parse().ok().filter(|&port| port != 0).ok_or(ProxyUrlError::Port)?,
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        let user = self.login.as_ref().map_or_else(String::new, |login| format!("{}@", login.user));
        write!(f, "{scheme}://{user}{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Which way connections to gateways leave: directly, or through a proxy with exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    proxy: Option<Proxy>,
    except: Exceptions,
}

impl Egress {
    /// Always directly.
    #[must_use]
    pub fn direct() -> Self {
        Self::default()
    }

    /// Always through this proxy.
    #[must_use]
    pub fn through(proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), except: Exceptions::default() }
    }

    /// Through this proxy, except to this machine itself and to what `no_proxy` lists: host names, which stand for
    /// all names below them as well, addresses, networks, each with or without a port, or `*` for everything.
    /// Separated by commas or blanks; what cannot be read matches nothing.
    #[must_use]
    pub fn from_environment(proxy: Proxy, no_proxy: &str) -> Self {
        Self { proxy: Some(proxy), except: Exceptions::beside_loopback(no_proxy) }
    }

    /// The proxy on the way to this host, if there is one.
    #[must_use]
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.except.contains(host, port))
    }
}

/// A host that is an address.
fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_read_with_and_without_their_parts_and_print_without_the_password() {
        for (text, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("proxy.example:3128", "http://proxy.example:3128"),
            ("HTTP://proxy.example/", "http://proxy.example:80"),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080"),
            ("socks5h://[::1]:9050", "socks5://[::1]:9050"),
            ("http://me:s3cret@proxy:1", "http://me@proxy:1"),
            ("http://me:p%40ss:w@rd@proxy:1", "http://me@proxy:1"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        }
        let login = "http://me:p%40ss:w@rd@proxy:1".parse::<Proxy>().unwrap().login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "p@ss:w@rd"));
        assert!(!"http://me@proxy".parse::<Proxy>().unwrap().has_password());
        let given = "http://me@proxy".parse::<Proxy>().unwrap().with_password("late").unwrap();
        assert!(given.has_password());
    }

    #[test]
    fn what_is_no_proxy_is_told_without_repeating_it() {
        for (text, error) in [
            ("ftp://proxy", ProxyUrlError::Scheme),
            ("https://proxy", ProxyUrlError::Https),
            ("http://", ProxyUrlError::Host),
            ("http://[::1", ProxyUrlError::Host),
            ("http://a b", ProxyUrlError::Host),
            ("http://proxy:", ProxyUrlError::Port),
            ("http://proxy:0", ProxyUrlError::Port),
            ("http://[::1]80", ProxyUrlError::Port),
            ("http://proxy/path", ProxyUrlError::Path),
            ("http://:secret@proxy", ProxyUrlError::Login),
            ("http://a%3ab:secret@proxy", ProxyUrlError::Login),
            ("http://a:%0d%0ax@proxy", ProxyUrlError::Login),
            ("http://a:%ff@proxy", ProxyUrlError::Login),
        ] {
            assert_eq!(text.parse::<Proxy>().unwrap_err(), error, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
        let long = format!("http://a:{}@proxy", "x".repeat(256));
        assert_eq!(long.parse::<Proxy>().unwrap_err(), ProxyUrlError::Login);
        assert!("http://proxy".parse::<Proxy>().unwrap().with_password("x").is_err(), "whose password?");
    }

    #[test]
    fn an_explicit_proxy_has_no_exceptions_and_one_from_the_environment_has() {
        let proxy: Proxy = "proxy:1".parse().unwrap();
        assert_eq!(Egress::direct().proxy_for("gateway.example", 8123), None);
        assert!(Egress::through(proxy.clone()).proxy_for("127.0.0.1", 8123).is_some());
        let egress = Egress::from_environment(proxy, "internal.example");
        assert!(egress.proxy_for("gateway.example", 8123).is_some());
        assert!(egress.proxy_for("gateway.internal.example", 8123).is_none());
        assert!(egress.proxy_for("127.0.0.1", 8123).is_none());
    }
}
