//! How each kind of value is written: read, and shown back.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_agent::config::{GatewayUrl, Transport, Upstream};
use adit_gateway::config::{MAX_HEADER_BYTES, MAX_HEADERS};
use adit_proto::name::Name;
use adit_proto::names::{Destination, HostPattern};
use adit_proto::proxy_header::Version;
use adit_tunnel::identity::LiveIdentity;
use ipnet::IpNet;

use crate::flags::PortRange;
use crate::{duration, egress, flags, token};
use adit_telemetry::secret::Secret;

/// What reading a value may need to know.
#[derive(Debug)]
pub(crate) struct Context<'f> {
    /// Where relative paths start.
    pub(crate) directory: &'f Path,
    /// Files that were looked into: the configuration changes when they do.
    pub(crate) files: RefCell<Vec<PathBuf>>,
}

impl<'f> Context<'f> {
    /// Nothing was looked into yet.
    pub(crate) const fn new(directory: &'f Path) -> Self {
        Self { directory, files: RefCell::new(Vec::new()) }
    }
}

/// Why a value is refused.
#[derive(Debug)]
pub(crate) struct Bad {
    /// What is wrong.
    pub(crate) what: String,
    /// What to do; `None`: write it as the kind says.
    pub(crate) hint: Option<String>,
}

impl Bad {
    fn because(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), hint: None }
    }

    fn with_hint(what: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self { what: what.to_string(), hint: Some(hint.into()) }
    }
}

/// A kind of value.
pub(crate) struct Kind<T> {
    /// In a word or two: `duration`.
    pub(crate) name: &'static str,
    /// How it is written: `a duration such as 10s`.
    pub(crate) form: &'static str,
    /// Reads it.
    pub(crate) parse: fn(&Context<'_>, &str) -> Result<T, Bad>,
    /// Shows it as it would be used; secrets redacted.
    pub(crate) show: fn(&T) -> String,
}

impl<T> fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An address to bind.
pub(crate) const ADDRESS: Kind<SocketAddr> = Kind {
    name: "address",
    form: "an IP address and a port such as 0.0.0.0:8123 or [::]:8123",
    parse: |_, text| {
        let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        named.as_deref().unwrap_or(text).parse().map_err(|_not_an_address| {
            let hint = if text.parse::<IpAddr>().is_ok() {
                Some("add the port, as in 0.0.0.0:8123".to_owned())
            } else {
                None
            };
            Bad { what: format!("`{text}` is not an address"), hint }
        })
    },
    show: ToString::to_string,
};

/// A time span, longer than nothing.
pub(crate) const DURATION: Kind<Duration> = Kind {
    name: "duration",
    form: "a duration such as 500ms, 10s or 2m",
    parse: |context, text| {
        (DURATION_OR_ZERO.parse)(context, text).and_then(|duration| {
            if duration.is_zero() {
                Err(Bad::because(format!("`{text}` is no time at all")))
            } else {
                Ok(duration)
            }
        })
    },
    show: duration::show,
};

/// A time span; `0s` does not wait.
pub(crate) const DURATION_OR_ZERO: Kind<Duration> = Kind {
    name: "duration",
    form: "a duration such as 500ms, 10s or 2m, or 0s",
    parse: |_, text| {
        let read = duration::parse(text).map_err(|_wrong| {
            let plain = text.parse::<u64>().is_ok();
            let hint = plain.then(|| format!("write the unit as well: {text}s"));
            Bad { what: format!("`{text}` is not a duration"), hint }
        })?;
        if read > LONGEST { Err(Bad::because(format!("`{text}` is more than 3650d"))) } else { Ok(read) }
    },
    show: duration::show,
};

/// Ten years: what is meant to be for ever, and can still be added to any moment.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// A number of things, at least one.
pub(crate) const COUNT: Kind<usize> = Kind {
    name: "number",
    form: "a whole number from 1 on",
    parse: |_, text| {
        text.parse()
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| Bad::because(format!("`{text}` is not a number of at least 1")))
    },
    show: ToString::to_string,
};

/// Header fields of a request: a library makes room for so many before it reads the first.
pub(crate) const FIELD_COUNT: Kind<usize> = Kind {
    name: "number",
    form: "a whole number from 1 to 10000",
    parse: |context, text| {
        (COUNT.parse)(context, text).and_then(|count| {
            if count > MAX_HEADERS {
                Err(Bad::because(format!("`{text}` is more than {MAX_HEADERS}")))
            } else {
                Ok(count)
            }
        })
    },
    show: ToString::to_string,
};

/// A number of things, at least one, in 32 bits.
pub(crate) const SMALL_COUNT: Kind<u32> = Kind {
    name: "number",
    form: "a whole number from 1 on",
    parse: |_, text| {
        text.parse()
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| Bad::because(format!("`{text}` is not a number of at least 1")))
    },
    show: ToString::to_string,
};

/// A number of things that may be none.
pub(crate) const COUNT_OR_ZERO: Kind<usize> = Kind {
    name: "number",
    form: "a whole number",
    parse: |_, text| {
        text.parse().map_err(|_not_a_number| Bad::because(format!("`{text}` is not a whole number")))
    },
    show: ToString::to_string,
};

/// Bytes of a request's head, which one client after the other may make a gateway hold: at least 1 KiB, at most 16 MiB.
pub(crate) const HEAD_SIZE: Kind<usize> = Kind {
    name: "size",
    form: "a size such as 64KiB, 1MiB or a number of bytes, from 1KiB to 16MiB",
    parse: |_, text| {
        size(text).ok_or_else(|| Bad::because(format!("`{text}` is not a size"))).and_then(|bytes| {
            if bytes < 1024 {
                Err(Bad::because(format!("`{text}` is less than 1KiB")))
            } else if bytes > MAX_HEADER_BYTES {
                Err(Bad::because(format!("`{text}` is more than {}MiB", MAX_HEADER_BYTES >> 20)))
            } else {
                Ok(bytes)
            }
        })
    },
    show: |&bytes| match bytes {
        _ if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        _ if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    },
};

fn size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Yes or no.
pub(crate) const SWITCH: Kind<bool> = Kind {
    name: "true or false",
    form: "true or false",
    parse: |_, text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Bad::because(format!("`{text}` is neither true nor false"))),
    },
    show: ToString::to_string,
};

/// Any text that is not empty.
pub(crate) const TEXT: Kind<String> = Kind {
    name: "text",
    form: "some text",
    parse: |_, text| if text.is_empty() { Err(Bad::because("it is empty")) } else { Ok(text.to_owned()) },
    show: Clone::clone,
};

/// A name that becomes a label in metrics.
pub(crate) const NAME: Kind<Name> = Kind {
    name: "name",
    form: "a name of letters, digits, `-`, `_` and `.`",
    parse: |_, text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let short = Some(text).filter(|text| text.len() <= 63 && text.chars().all(fits));
        short
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Bad::because(format!("`{text}` is not a name")))
    },
    show: ToString::to_string,
};

/// A file that is read.
pub(crate) const FILE: Kind<PathBuf> = Kind {
    name: "file",
    form: "the path of a file",
    parse: |context, text| {
        let path = absolute(context, text)?;
        context.files.borrow_mut().push(path.clone());
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(about) if about.is_file() => Ok(path),
            Ok(_) => Err(Bad::because(format!("{} is not a file", path.display()))),
            Err(cause) => Err(Bad::with_hint(
                format!("cannot read {}: {cause}", path.display()),
                "check that it exists and that this user may read it",
            )),
        }
    },
    show: |path| path.display().to_string(),
};

/// A directory that is made when it is not there.
pub(crate) const DIRECTORY: Kind<PathBuf> = Kind {
    name: "directory",
    form: "the path of a directory",
    parse: |context, text| {
        let path = absolute(context, text)?;
        if path.exists() && !path.is_dir() {
            return Err(Bad::because(format!("{} is not a directory", path.display())));
        }
        Ok(path)
    },
    show: |path| path.display().to_string(),
};

fn absolute(context: &Context<'_>, text: &str) -> Result<PathBuf, Bad> {
    if text.is_empty() {
        return Err(Bad::because("the path is empty"));
    }
    Ok(context.directory.join(text))
}

/// A control port.
pub(crate) const CONTROL_URL: Kind<String> = Kind {
    name: "URL",
    form: "the control port as those who enroll reach it, such as https://gw.example.com:8123",
    parse: |_, text| flags::control_url(text).map_err(Bad::because),
    show: Clone::clone,
};

/// A SPIFFE trust domain.
pub(crate) const TRUST_DOMAIN: Kind<String> = Kind {
    name: "trust domain",
    form: "lower-case letters, digits, `.`, `-` and `_`, such as example.com",
    parse: |_, text| {
        if adit_control::authority::is_trust_domain(text) {
            Ok(text.to_owned())
        } else {
            Err(Bad::because(format!("`{text}` is no trust domain")))
        }
    },
    show: Clone::clone,
};

/// An IP address or a network.
pub(crate) const NETWORK: Kind<IpNet> = Kind {
    name: "network",
    form: "an IP address or a CIDR such as 203.0.113.7 or 10.0.0.0/8",
    parse: |_, text| {
        flags::network(text)
            .map_err(|_wrong| Bad::because(format!("`{text}` is neither an address nor a network")))
    },
    show: ToString::to_string,
};

/// The hosts a service answers for.
pub(crate) const HOST: Kind<HostPattern> = Kind {
    name: "host",
    form: "example.com, *.example.com or \"*\"",
    parse: |_, text| text.parse().map_err(Bad::because),
    show: ToString::to_string,
};

/// An identity file.
pub(crate) const IDENTITY: Kind<Arc<LiveIdentity>> = Kind {
    name: "file",
    form: "the path of the file that adit enroll wrote",
    parse: |context, text| {
        let path = absolute(context, text)?;
        // Not among the files that are watched: its renewals are no change of the configuration.
        LiveIdentity::open(&path).map_err(|cause| {
            let why = std::error::Error::source(&cause).map(|why| format!(": {why}")).unwrap_or_default();
            Bad::with_hint(format!("{cause}{why}"), "name the file that adit enroll wrote")
        })
    },
    show: |identity| identity.path().map(|path| path.display().to_string()).unwrap_or_default(),
};

/// A service by its name.
pub(crate) const SERVICE: Kind<Name> = Kind {
    name: "service",
    form: "the name of a service",
    parse: |_, text| text.parse().map_err(|cause| Bad::because(format!("`{text}`: {cause}"))),
    show: ToString::to_string,
};

/// A port or a range of ports.
pub(crate) const PORTS: Kind<PortRange> = Kind {
    name: "port or range",
    form: "a port such as 5432, or a range such as 8000-8010",
    parse: |_, text| flags::port_range(text).map_err(Bad::because),
    show: ToString::to_string,
};

/// A host and a port.
pub(crate) const DESTINATION: Kind<Destination> = Kind {
    name: "host:port",
    form: "a host and a port such as 127.0.0.1:3000 or [::1]:3000",
    parse: |_, text| {
        text.parse().map_err(|_wrong| Bad::because(format!("`{text}` is not a host and a port")))
    },
    show: ToString::to_string,
};

/// A version of the PROXY protocol.
pub(crate) const PROXY_VERSION: Kind<Version> = Kind {
    name: "version",
    form: "v1 or v2",
    parse: |_, text| text.parse().map_err(|_unknown| Bad::because(format!("`{text}` is not a version"))),
    show: |version| match version {
        Version::V1 => "v1".to_owned(),
        Version::V2 => "v2".to_owned(),
    },
};

/// An address of this machine.
pub(crate) const IP: Kind<IpAddr> = Kind {
    name: "IP address",
    form: "an IP address such as 0.0.0.0, 127.0.0.1 or ::",
    parse: |_, text| {
        flags::bind_ip(text).map_err(|_wrong| {
            let hint = text
                .parse::<SocketAddr>()
                .is_ok()
                .then(|| "leave the port out; agents name the ports".to_owned());
            Bad { what: format!("`{text}` is not an IP address"), hint }
        })
    },
    show: ToString::to_string,
};

/// What stands behind a service.
pub(crate) const UPSTREAM: Kind<Upstream> = Kind {
    name: "upstream",
    form: "http://host:port, https://host:port, tcp://host:port, unix:/path, file:/path or http_status:404",
    parse: |context, text| match text.parse() {
        Ok(Upstream::Files { root, browsing }) => {
            Ok(Upstream::Files { root: context.directory.join(root), browsing })
        }
        Ok(other) => Ok(other),
        Err(cause) => Err(Bad::because(cause)),
    },
    show: ToString::to_string,
};

/// The gateway's control port.
pub(crate) const GATEWAY_URL: Kind<GatewayUrl> = Kind {
    name: "url",
    form: "wss://host:8123",
    parse: |_, text| text.parse().map_err(Bad::because),
    show: ToString::to_string,
};

/// The way out. A password does not belong in the file.
pub(crate) const EGRESS: Kind<egress::Choice> = Kind {
    name: "proxy",
    form: egress::FORM,
    parse: |_, text| match text.parse() {
        Ok(egress::Choice::Proxy(proxy)) if proxy.has_password() => Err(Bad::with_hint(
            "a password does not belong in this file",
            "write only the user, and `proxy_password: file:/path` or env:NAME",
        )),
        other => other.map_err(Bad::because),
    },
    show: ToString::to_string,
};

/// A secret and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct SecretValue {
    /// The secret.
    pub(crate) secret: Secret,
    source: String,
}

/// A secret: never in the file itself.
pub(crate) const SECRET: Kind<SecretValue> = Kind {
    name: "file:/path or env:NAME",
    form: "file:/path or env:NAME",
    parse: |context, text| {
        let (secret, source) = if let Some(path) = text.strip_prefix("file:") {
            let path = absolute(context, path)?;
            context.files.borrow_mut().push(path.clone());
            (token::read_file(&path, "file"), format!("file:{}", path.display()))
        } else if let Some(name) = text.strip_prefix("env:") {
            (token::read_env(name, "variable"), text.to_owned())
        } else {
            return Err(Bad::with_hint(
                "a secret does not belong in this file",
                "put it into a file of its own and write file:/path, or env:NAME for an environment variable",
            ));
        };
        let secret = secret.map_err(|cause| {
            let (what, next) = cause.what_and_next();
            Bad { what, hint: next }
        })?;
        Ok(SecretValue { secret, source })
    },
    show: |value| format!("<redacted, from {}>", value.source),
};

/// Where the request log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}

impl LogTarget {
    /// Reads `off`, `stdout`, `stderr` or a path.
    pub(crate) fn from_text(text: &str) -> Self {
        match text {
            "off" => Self::Off,
            "stdout" | "-" => Self::Stdout,
            "stderr" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }

    /// As it is written.
    pub(crate) fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Stdout => "stdout".to_owned(),
            Self::Stderr => "stderr".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// Where the request log goes. A bare word that is none of the three is a typing mistake, not a file name.
pub(crate) const LOG_TARGET: Kind<LogTarget> = Kind {
    name: "log target",
    form: "off, stdout, stderr or the path of a file",
    parse: |context, text| match LogTarget::from_text(text) {
        LogTarget::File(path) if text.contains(['/', '.', '\\']) => {
            let path = context.directory.join(path);
            // `join` on an empty directory leaves a parent that is empty as well: the working directory.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent {
                Some(parent) if !parent.is_dir() => Err(Bad::with_hint(
                    format!("{} is not a directory", parent.display()),
                    "make it, and let this user write there",
                )),
                Some(_) | None => Ok(LogTarget::File(path)),
            }
        }
        LogTarget::File(_) => Err(Bad::because(format!("`{text}` is not a place for a log"))),
        known => Ok(known),
    },
    show: LogTarget::show,
};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What may fail soon.
    Warn,
    /// What changed.
    Info,
    /// Every flow.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As written, and as the log filter takes it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl LogFormat {
    /// As written.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What the logger is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogSettings {
    /// How much.
    pub(crate) level: LogLevel,
    /// In which form.
    pub(crate) format: LogFormat,
}

fn choice<T: clap::ValueEnum>(text: &str) -> Result<T, Bad> {
    T::from_str(text, false).map_err(|_unknown| Bad::because(format!("`{text}` is not one of the choices")))
}

/// A log level.
pub(crate) const LOG_LEVEL: Kind<LogLevel> = Kind {
    name: "log level",
    form: "off, error, warn, info, debug or trace",
    parse: |_, text| choice(text),
    show: |level| level.label().to_owned(),
};

/// A log format.
pub(crate) const LOG_FORMAT: Kind<LogFormat> = Kind {
    name: "log format",
    form: "text or json",
    parse: |_, text| choice(text),
    show: |format| format.label().to_owned(),
};

/// What carries a session.
pub(crate) const TRANSPORT: Kind<Transport> = Kind {
    name: "transport",
    form: "auto, tls, websocket (or wss) or quic",
    parse: |_, text| read_transport(text).ok_or_else(|| Bad::because(format!("`{text}` is not a transport"))),
    show: |transport| show_transport(*transport).to_owned(),
};

/// Reads a transport; `wss` is what URLs call WebSocket.
pub(crate) fn read_transport(text: &str) -> Option<Transport> {
    Some(match text {
        "auto" => Transport::Auto,
        "tls" => Transport::Tls,
        "websocket" | "wss" => Transport::WebSocket,
        "quic" => Transport::Quic,
        _ => return None,
    })
}

/// A transport as it is written.
pub(crate) const fn show_transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Auto => "auto",
        Transport::Tls => "tls",
        Transport::WebSocket => "websocket",
        Transport::Quic => "quic",
    }
}

/// How the gateway's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The gateway's proof of the token stands in for an authority.
    Token,
    /// By authorities.
    System,
}

/// How the gateway's certificate is checked.
pub(crate) const CHECK: Kind<Check> = Kind {
    name: "check",
    form: "token or system",
    parse: |_, text| match text {
        "token" => Ok(Check::Token),
        "system" => Ok(Check::System),
        _ => Err(Bad::because(format!("`{text}` is not a way to check a certificate"))),
    },
    show: |check| match check {
        Check::Token => "token".to_owned(),
        Check::System => "system".to_owned(),
    },
};
