//! `gateway.yaml`: one definition per key, and how they become a gateway's configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_control::model::{Limits as TokenLimits, Ports};
use adit_gateway::config::{
    Config, Control, HttpListener, Limits, LocalToken, SecretText, State, TcpServices, Tls,
};
use adit_proto::name::Name;
use adit_proto::proxy_header::Version;
use ipnet::IpNet;

use super::reader::{Fields, Key, Presence, Reader, Row, Section};
use super::tree::Node;
use super::values::{
    ADDRESS, COUNT, COUNT_OR_ZERO, DIRECTORY, DURATION, DURATION_OR_ZERO, FIELD_COUNT, FILE, HEAD_SIZE, HOST,
    IP, LOG_TARGET, LogSettings, LogTarget, NAME, NETWORK, PORTS, PROXY_VERSION, SECRET, SMALL_COUNT, SWITCH,
    SecretValue, TEXT,
};
use super::{Loaded, env, shared, state};
use crate::error::CliError;

/// All that `adit gateway` is told.
#[derive(Debug)]
pub(crate) struct GatewaySettings {
    /// For the gateway; its request log is opened at start.
    pub(crate) config: Config,
    /// Where the request log goes.
    pub(crate) request_log: LogTarget,
    /// For the logger.
    pub(crate) log: LogSettings,
}

const DEFAULTS: Presence = Presence::Optional("the defaults of its keys");

const CONTROL: Row =
    Row::map("control", DEFAULTS, "The port that agents, `adit status` and Prometheus connect to.");
const HTTP: Row = Row::list(
    "http",
    Presence::Optional("one listener on 0.0.0.0:8000, or none beside `tcp`"),
    "The public HTTP listeners.",
);
const TCP: Row = Row::map(
    "tcp",
    Presence::Optional("no TCP services"),
    "TCP services: public ports that agents name. Without `http` beside it this is a gateway for TCP alone.",
);
const TOKENS: Row =
    Row::list("tokens", Presence::Required, "Who may connect an agent or read the control port.");
const ACCESS: Row = Row::map("access", DEFAULTS, "Who may use the public listeners.");
const LIMITS: Row = Row::map("limits", DEFAULTS, "Bounds on what clients and agents may cost.");
const REQUEST_LOG: Key<LogTarget> = Key {
    name: "request_log",
    kind: &LOG_TARGET,
    presence: Presence::Default("off"),
    doc: "Where one line per request is written.",
};

/// The keys of the whole file.
pub(super) const ROOT: Section = Section {
    title: "gateway.yaml",
    doc: "The configuration of `adit gateway -f gateway.yaml`.",
    rows: &[
        CONTROL,
        HTTP,
        TCP,
        TOKENS,
        state::STATE,
        ACCESS,
        LIMITS,
        REQUEST_LOG.row(),
        shared::LOG,
        shared::DRAIN_TIMEOUT.row(),
    ],
};

const CONTROL_LISTEN: Key<SocketAddr> = Key {
    name: "listen",
    kind: &ADDRESS,
    presence: Presence::Default("0.0.0.0:8123"),
    doc: "The address to bind.",
};
const CONTROL_TLS: Row = Row::map(
    "tls",
    Presence::Optional("auto, with the defaults of its keys"),
    "Its certificate: either `auto`, or `cert` with `key`. TLS 1.3 always.",
);
const CONTROL_QUIC: Key<bool> = Key {
    name: "quic",
    kind: &SWITCH,
    presence: Presence::Default("true"),
    doc: "Serves agents by QUIC as well, on the UDP port of the same number.",
};
const CONTROL_SECTION: Section = Section {
    title: "control",
    doc: "The port that agents, `adit status` and Prometheus connect to.",
    rows: &[CONTROL_LISTEN.row(), CONTROL_TLS, CONTROL_QUIC.row()],
};

const HTTP_LISTEN: Key<SocketAddr> = Key {
    name: "listen",
    kind: &ADDRESS,
    presence: Presence::Default("0.0.0.0:8000"),
    doc: "The address to bind.",
};
const HTTP_TLS: Row = Row::map(
    "tls",
    Presence::Optional("cleartext HTTP"),
    "Its certificate: either `auto`, or `cert` with `key`.",
);
const LB_PROXY_PROTOCOL: Key<bool> = Key {
    name: "lb_proxy_protocol",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Every connection comes from one of access.trusted_proxies and begins with a PROXY header.",
};
const HTTP_SECTION: Section = Section {
    title: "http[]",
    doc: "One public HTTP listener.",
    rows: &[HTTP_LISTEN.row(), HTTP_TLS, LB_PROXY_PROTOCOL.row()],
};

const TCP_LISTEN: Key<IpAddr> = Key {
    name: "listen",
    kind: &IP,
    presence: Presence::Default("0.0.0.0"),
    doc: "The address that every offered port is bound to.",
};
const TCP_PORTS: Row = Row::list(
    "ports",
    Presence::Optional("any that can be bound"),
    "Ports and ranges that agents may offer.",
);
const PROXY_PROTOCOL: Key<Version> = Key {
    name: "proxy_protocol",
    kind: &PROXY_VERSION,
    presence: Presence::Optional("upstreams are not told who connected"),
    doc: "Tells upstreams who connected, by a PROXY header in front of the client's first byte.",
};
const CLIENT_FORWARDING: Key<bool> = Key {
    name: "client_forwarding",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Whether agents may have the gateway connect to addresses of its own network (`forwards` in agent.yaml).",
};
const TCP_SECTION: Section = Section {
    title: "tcp",
    doc: "TCP services. A port is bound while an agent offers it.",
    rows: &[
        TCP_LISTEN.row(),
        TCP_PORTS,
        PROXY_PROTOCOL.row(),
        LB_PROXY_PROTOCOL.row(),
        CLIENT_FORWARDING.row(),
    ],
};

const AUTO: Row = Row::map(
    "auto",
    Presence::Optional("see above"),
    "A self-made authority and a certificate signed by it.",
);
const CERT: Key<PathBuf> = Key {
    name: "cert",
    kind: &FILE,
    presence: Presence::Optional("no file"),
    doc: "PEM file with the certificate chain, leaf first.",
};
const KEY: Key<PathBuf> = Key {
    name: "key",
    kind: &FILE,
    presence: Presence::Optional("no file"),
    doc: "PEM file with the private key.",
};
const TLS_SECTION: Section = Section {
    title: "tls",
    doc: "Where a listener's certificate comes from.",
    rows: &[AUTO, CERT.row(), KEY.row()],
};

const NAMES: Row = Row::list(
    "names",
    Presence::Optional("localhost and loopback only"),
    "DNS names and IP addresses the certificate is valid for, beside localhost.",
);
const AUTO_DIRECTORY: Key<PathBuf> = Key {
    name: "directory",
    kind: &DIRECTORY,
    presence: Presence::Optional(
        "state.directory, else $STATE_DIRECTORY, /var/lib/adit as root, or ~/.local/state/adit",
    ),
    doc: "Where the authority and the keys are kept, so that they survive a restart.",
};
const AUTO_SECTION: Section = Section {
    title: "tls.auto",
    doc: "A self-made authority. Agents need no copy of it: they prove the token to the gateway and it to them.",
    rows: &[NAMES, AUTO_DIRECTORY.row()],
};

const TOKEN_NAME: Key<Name> = Key {
    name: "name",
    kind: &NAME,
    presence: Presence::Required,
    doc: "The name in the gateway's log; each once.",
};
const TOKEN: Key<SecretValue> = Key {
    name: "token",
    kind: &SECRET,
    presence: Presence::Required,
    doc: "The token; never in this file itself.",
};
const TOKEN_ATTRIBUTES: Row = Row::list(
    "attributes",
    Presence::Optional("none"),
    "What policies select its identity by (`#attribute`).",
);
const TOKEN_ADMIN: Key<bool> = Key {
    name: "admin",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Whether it may use the admin interface.",
};
const TOKEN_METRICS: Key<bool> = Key {
    name: "metrics",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Whether it may read `/metrics`, and nothing else by this; goes with `limits`.",
};
const TOKEN_LIMITS: Row = Row::map(
    "limits",
    Presence::Optional("it may be used to offer everything"),
    "What its agents may offer without a policy.",
);
const TOKEN_SECTION: Section = Section {
    title: "tokens[]",
    doc: "One shared token.",
    rows: &[
        TOKEN_NAME.row(),
        TOKEN.row(),
        TOKEN_ATTRIBUTES,
        TOKEN_ADMIN.row(),
        TOKEN_METRICS.row(),
        TOKEN_LIMITS,
    ],
};

const LIMIT_HOSTS: Row = Row::list(
    "hosts",
    Presence::Optional("none"),
    "Hosts, each with everything below it where it is a pattern: `app.example.com`, `*.example.com`.",
);
const LIMIT_PORTS: Row = Row::list("ports", Presence::Optional("none"), "TCP ports and ranges.");
const LIMIT_SERVICES: Row = Row::list("services", Presence::Optional("none"), "Services by name.");
const TOKEN_LIMITS_SECTION: Section = Section {
    title: "tokens[].limits",
    doc: "What a token's agents may offer without a policy. Other things need a Bind policy.",
    rows: &[LIMIT_HOSTS, LIMIT_PORTS, LIMIT_SERVICES],
};

const ALLOW: Row = Row::list(
    "allow",
    Presence::Optional("everyone"),
    "Addresses and networks that may use the public listeners.",
);
const TRUSTED_PROXIES: Row = Row::list(
    "trusted_proxies",
    Presence::Optional("none"),
    "Addresses and networks of proxies in front whose `X-Forwarded-*`, `Forwarded` and PROXY headers are believed.",
);
const ACCESS_SECTION: Section =
    Section { title: "access", doc: "Who may use the public listeners.", rows: &[ALLOW, TRUSTED_PROXIES] };

/// A bound that has a default of its own, and one that follows from another where it is not written.
macro_rules! limit {
    (Default read $reader:ident, $fields:ident, $key:path) => {
        $reader.value(&$fields, &$key)
    };
    (Optional read $reader:ident, $fields:ident, $key:path) => {
        $reader.optional(&$fields, &$key)
    };
    (Default of $field:ident) => {
        $field?
    };
    (Optional of $field:ident) => {
        $field
    };
}

macro_rules! limits {
    ($($field:ident: $kind:ty = $form:ident, $presence:ident($text:literal), $doc:literal;)+) => {
        mod limit {
            use super::*;
            $(
                #[expect(non_upper_case_globals, reason = "named as the field it fills")]
                pub(super) const $field: Key<$kind> = Key {
                    name: stringify!($field),
                    kind: &$form,
                    presence: Presence::$presence($text),
                    doc: $doc,
                };
            )+
        }

        const LIMITS_SECTION: Section = Section {
            title: "limits",
            doc: "Bounds on what clients and agents may cost. The defaults suit an edge on the open internet.",
            rows: &[$(limit::$field.row()),+],
        };

        fn limits(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<Limits> {
            let fields = reader.map(root, LIMITS, &LIMITS_SECTION)?;
            $(let $field = limit!($presence read reader, fields, limit::$field);)+
            Some(Limits { $($field: limit!($presence of $field)),+ })
        }
    };
}

limits! {
    max_connections: usize = COUNT, Default("65536"), "Public connections at once; more wait in the kernel's queue.";
    max_connections_per_source: usize = COUNT, Optional("a quarter of max_connections"),
        "Of these, from one address (of IPv6, one /64) that is no trusted proxy; more are reset.";
    max_sessions: usize = COUNT, Default("20000"), "Sessions of agents at once.";
    max_header_bytes: usize = HEAD_SIZE, Default("64KiB"), "Size of a request's head; at most 16MiB.";
    max_headers: usize = FIELD_COUNT, Default("100"), "Header fields of a request; at most 10000.";
    header_timeout: Duration = DURATION, Default("10s"), "Until a request's head, or a TLS handshake, must be complete.";
    idle_timeout: Duration = DURATION, Default("75s"), "How long a connection may stay open without a request on it.";
    stall_timeout: Duration = DURATION, Default("2m"),
        "How long a client may let a body stand still that it sends, or a response that it does not read.";
    connect_timeout: Duration = DURATION, Default("10s"), "How long the agent may take to connect to the upstream.";
    response_timeout: Duration = DURATION, Default("5m"),
        "How long the upstream may take from the end of the request to the head of its response.";
    agent_wait: Duration = DURATION_OR_ZERO, Default("5s"),
        "How long a request waits for an agent of a known service to come back before it is refused.";
    max_idle_streams: usize = COUNT_OR_ZERO, Default("1024"), "Idle streams kept open per endpoint for the next request.";
    max_auth_failures: u32 = SMALL_COUNT, Default("20"),
        "Failed authentications per source address and minute before further ones are told `rate_limited`; the right token is let in all the same.";
}

/// Every section, in the order of the reference page.
pub(crate) const SECTIONS: &[&Section] = &[
    &ROOT,
    &CONTROL_SECTION,
    &HTTP_SECTION,
    &TCP_SECTION,
    &TLS_SECTION,
    &AUTO_SECTION,
    &TOKEN_SECTION,
    &TOKEN_LIMITS_SECTION,
    &state::STATE_SECTION,
    &ACCESS_SECTION,
    &LIMITS_SECTION,
    &shared::LOG_SECTION,
];

/// Reads a gateway's file.
///
/// # Errors
/// It cannot be read, or has problems: all of them.
pub(crate) fn load(path: &Path) -> Result<Loaded<GatewaySettings>, CliError> {
    super::load(path, read)
}

/// Reads the root of a gateway's file.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<GatewaySettings> {
    if shared::is_of_another(reader, node, &ROOT, &super::agent::ROOT, "adit agent") {
        return None;
    }
    let root = reader.fields(node, String::new(), &ROOT)?;
    let control = control(reader, &root);
    let http = http(reader, &root);
    let tcp = root.has(TCP.name).then(|| tcp(reader, &root));
    let tokens = tokens(reader, &root);
    let state = state::state(reader, &root, control.as_ref().map(|control| &control.tls));
    let access = access(reader, &root);
    let limits = limits(reader, &root);
    if let Some(limits) = &limits
        && let Some(one) = limits.max_connections_per_source.filter(|one| *one > limits.max_connections)
    {
        let what = format!(
            "limits.max_connections_per_source is {one}, and limits.max_connections only {}",
            limits.max_connections
        );
        reader.problem(
            root.value_at(LIMITS.name),
            what,
            "write fewer, or leave it out: one source has a quarter then",
        );
    }
    let request_log = reader.value(&root, &REQUEST_LOG);
    let log = shared::log(reader, &root);
    let drain_timeout = reader.value(&root, &shared::DRAIN_TIMEOUT);
    let mut control = control?;
    share_directory(reader, &mut control.tls, state.as_ref());
    for listener in
        http.iter().filter(|listener| listener.listen == control.listen && control.listen.port() != 0)
    {
        let what = format!("control and http both listen on {}", listener.listen);
        reader.problem(root.value_at("http"), what, "give one of them another port");
    }
    let (allow, trusted_proxies) = access?;
    let (tcp, client_forwarding) = tcp.flatten().unzip();
    let has_balancer = http.iter().any(|listener| listener.lb_proxy_protocol)
        || tcp.as_ref().is_some_and(|tcp| tcp.lb_proxy_protocol);
    if has_balancer && trusted_proxies.is_empty() {
        let what = "lb_proxy_protocol is on, but access.trusted_proxies names nobody";
        let hint = "name the balancer's addresses there; whoever connects could otherwise choose its address";
        reader.problem(root.value_at(ACCESS.name), what, hint);
    }
    Some(GatewaySettings {
        config: Config {
            control,
            http,
            tcp,
            tokens,
            state: state?,
            allow,
            trusted_proxies,
            client_forwarding: client_forwarding.unwrap_or(false),
            limits: limits?,
            request_log: None,
            drain_timeout: drain_timeout?,
            process_log: None,
            revision: crate::version::SHA,
        },
        request_log: request_log?,
        log: log?,
    })
}

fn control(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<Control> {
    let fields = reader.map(root, CONTROL, &CONTROL_SECTION)?;
    let listen = reader.value(&fields, &CONTROL_LISTEN);
    let tls = tls(reader, &fields, CONTROL_TLS);
    let quic = reader.value(&fields, &CONTROL_QUIC);
    Some(Control { listen: listen?, tls: tls?, quic: quic? })
}

fn http(reader: &mut Reader<'_>, root: &Fields<'_>) -> Vec<HttpListener> {
    if !root.has(HTTP.name) {
        if root.has(TCP.name) {
            return Vec::new();
        }
        let default = (ADDRESS.parse)(&super::values::Context::new(Path::new("")), HTTP_DEFAULT).ok();
        reader.setting(format!("{}[0].listen", HTTP.name), HTTP_DEFAULT.to_owned(), true);
        return default
            .map(|listen| HttpListener { listen, tls: None, lb_proxy_protocol: false })
            .into_iter()
            .collect();
    }
    let mut listeners: Vec<HttpListener> = Vec::new();
    // Leaving it out means one listener; writing an empty list means nothing that works.
    for (path, node) in reader.items(root, Row { presence: Presence::Required, ..HTTP }) {
        let Some(fields) = reader.fields(node, path, &HTTP_SECTION) else { continue };
        let listen = reader.value(&fields, &HTTP_LISTEN);
        let tls = fields.has(HTTP_TLS.name).then(|| tls(reader, &fields, HTTP_TLS));
        let lb_proxy_protocol = reader.value(&fields, &LB_PROXY_PROTOCOL);
        let (Some(listen), Some(lb_proxy_protocol)) = (listen, lb_proxy_protocol) else { continue };
        if listen.port() != 0 && listeners.iter().any(|other| other.listen == listen) {
            let what = format!("{} is {listen} again", fields.path(HTTP_LISTEN.name));
            reader.problem(
                fields.value_at(HTTP_LISTEN.name),
                what,
                "give each listener an address of its own",
            );
        }
        listeners.push(HttpListener { listen, tls: tls.flatten(), lb_proxy_protocol });
    }
    listeners
}

/// The TCP services, and whether agents may have the gateway connect.
fn tcp(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<(TcpServices, bool)> {
    let fields = reader.map(root, TCP, &TCP_SECTION)?;
    let ports = reader.list(&fields, TCP_PORTS, &PORTS);
    let ports = ports.iter().map(|range| range.as_inner().clone()).collect();
    let listen = reader.value(&fields, &TCP_LISTEN);
    let proxy_protocol = reader.optional(&fields, &PROXY_PROTOCOL);
    let lb_proxy_protocol = reader.value(&fields, &LB_PROXY_PROTOCOL);
    let client_forwarding = reader.value(&fields, &CLIENT_FORWARDING);
    let tcp = TcpServices { listen: listen?, ports, proxy_protocol, lb_proxy_protocol: lb_proxy_protocol? };
    Some((tcp, client_forwarding?))
}

const HTTP_DEFAULT: &str = "0.0.0.0:8000";

fn tls(reader: &mut Reader<'_>, parent: &Fields<'_>, row: Row) -> Option<Tls> {
    let fields = reader.map(parent, row, &TLS_SECTION)?;
    let has_files = fields.has(CERT.name) || fields.has(KEY.name);
    if fields.has(AUTO.name) && has_files {
        let at = fields.key_at(if fields.has(CERT.name) { CERT.name } else { KEY.name });
        let what = format!("{} has both auto and files", parent.path(row.name));
        reader.problem(at, what, "keep either auto, or cert and key");
        return None;
    }
    if !has_files {
        return auto(reader, &fields);
    }
    for (present, absent) in [(CERT.name, KEY.name), (KEY.name, CERT.name)] {
        if fields.has(present) && !fields.has(absent) {
            let what = format!("{} is given without {absent}", fields.path(present));
            reader.problem(
                fields.key_at(present),
                what,
                format!("add {absent} with the PEM file that belongs to it"),
            );
        }
    }
    let cert = reader.optional(&fields, &CERT);
    let key = reader.optional(&fields, &KEY);
    Some(Tls::Files { cert: cert?, key: key? })
}

fn auto(reader: &mut Reader<'_>, tls: &Fields<'_>) -> Option<Tls> {
    let fields = reader.map(tls, AUTO, &AUTO_SECTION)?;
    let names = reader.list(&fields, NAMES, &TEXT);
    let directory = if fields.has(AUTO_DIRECTORY.name) {
        Some(reader.value(&fields, &AUTO_DIRECTORY)?)
    } else {
        let directory = env::state_directory();
        let shown =
            directory.as_ref().map_or_else(|| "<in memory>".to_owned(), |path| path.display().to_string());
        reader.setting(fields.path(AUTO_DIRECTORY.name), shown, true);
        directory
    };
    Some(Tls::Auto { names, directory })
}

/// One authority for the control port and for identities, unless somebody wants two.
fn share_directory(reader: &mut Reader<'_>, tls: &mut Tls, state: Option<&State>) {
    let path = format!("{}.{}.{}.{}", CONTROL.name, CONTROL_TLS.name, AUTO.name, AUTO_DIRECTORY.name);
    if let Tls::Auto { directory, .. } = tls
        && let Some(kept) = state.and_then(|state| state.directory.as_ref())
        && reader.default_becomes(&path, &kept.display().to_string())
    {
        *directory = Some(kept.clone());
    }
}

fn tokens(reader: &mut Reader<'_>, root: &Fields<'_>) -> Vec<LocalToken> {
    let mut tokens: Vec<LocalToken> = Vec::new();
    for (path, node) in reader.items(root, TOKENS) {
        let Some(fields) = reader.fields(node, path, &TOKEN_SECTION) else { continue };
        let name = reader.value(&fields, &TOKEN_NAME);
        let token = reader.value(&fields, &TOKEN);
        let (Some(name), Some(token)) = (name, token) else { continue };
        if tokens.iter().any(|other| other.token.name == name) {
            let what = format!("{} is {name} again", fields.path(TOKEN_NAME.name));
            reader.problem(fields.value_at(TOKEN_NAME.name), what, "give each token a name of its own");
        }
        if tokens.iter().any(|other| other.secret.expose() == token.secret.expose()) {
            let what = format!("{} is the same as one above", fields.path(TOKEN.name));
            reader.problem(fields.value_at(TOKEN.name), what, "make a token of its own for each name");
        }
        let mut local = LocalToken::new(name, SecretText::new(token.secret.expose().to_owned()));
        local.token.attributes = reader.list(&fields, TOKEN_ATTRIBUTES, &NAME);
        local.token.admin = reader.value(&fields, &TOKEN_ADMIN).unwrap_or(false);
        if fields.has(TOKEN_LIMITS.name) {
            local.token.limits = token_limits(reader, &fields);
        }
        local.token.metrics = reader.value(&fields, &TOKEN_METRICS).unwrap_or(false);
        if local.token.check_metrics().is_err() {
            let what = format!(
                "{} is for a token with limits: one without may offer everything, and reads /metrics anyway",
                fields.path(TOKEN_METRICS.name)
            );
            reader.problem(
                fields.key_at(TOKEN_METRICS.name),
                what,
                "add `limits: {}`: it may offer nothing then",
            );
        }
        tokens.push(local);
    }
    tokens
}

/// A limit that is drawn says what may be offered, also where it says nothing.
fn token_limits(reader: &mut Reader<'_>, token: &Fields<'_>) -> TokenLimits {
    let nothing = TokenLimits { hosts: Some(Vec::new()), ..TokenLimits::default() };
    let Some(fields) = reader.map(token, TOKEN_LIMITS, &TOKEN_LIMITS_SECTION) else { return nothing };
    let ports = reader.list(&fields, LIMIT_PORTS, &PORTS);
    TokenLimits {
        hosts: Some(reader.list(&fields, LIMIT_HOSTS, &HOST)),
        ports: Some(ports.iter().map(|range| Ports(range.as_inner().clone())).collect()),
        services: Some(reader.list(&fields, LIMIT_SERVICES, &NAME)),
    }
}

fn access(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<(Vec<IpNet>, Vec<IpNet>)> {
    let fields = reader.map(root, ACCESS, &ACCESS_SECTION)?;
    Some((reader.list(&fields, ALLOW, &NETWORK), reader.list(&fields, TRUSTED_PROXIES, &NETWORK)))
}
