//! `agent.yaml`: one definition per key, and how they become an agent's configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_agent::config::{Config, Credential, Forward, GatewayUrl, Service, To, Transport, Upstream, Verify};
use adit_proto::name::Name;
use adit_proto::names::{Destination, HostPattern, ServiceName};
use adit_tunnel::identity::LiveIdentity;
use adit_tunnel::proof::TokenKey;
use adit_tunnel::proxy::Egress;

use super::reader::{Fields, Key, Presence, Reader, Row, Section};
use super::tree::Node;
use super::values::{
    ADDRESS, CHECK, Check, DESTINATION, EGRESS, FILE, GATEWAY_URL, HOST, IDENTITY, LogSettings, PORTS,
    SECRET, SERVICE, SWITCH, SecretValue, TRANSPORT, UPSTREAM, show_transport,
};
use super::{Loaded, shared};
use crate::egress::{self, Choice};
use crate::error::CliError;
use crate::flags::PortRange;

/// All that `adit agent` is told.
#[derive(Debug)]
pub(crate) struct AgentSettings {
    /// For the agent.
    pub(crate) config: Config,
    /// For the logger.
    pub(crate) log: LogSettings,
}

const GATEWAY: Row = Row::map("gateway", Presence::Required, "The gateway to connect to.");
const TOKEN: Key<SecretValue> = Key {
    name: "token",
    kind: &SECRET,
    presence: Presence::Required,
    doc: "The token shared with the gateway; never in this file itself. `identity` takes its place.",
};
const IDENTITY_FILE: Key<Arc<LiveIdentity>> = Key {
    name: "identity",
    kind: &IDENTITY,
    presence: Presence::Optional("known by token"),
    doc: "The identity that the agent has, instead of a token; its certificate is renewed and the file rewritten. The gateway is known by the authorities in it, or the system's.",
};
const SERVICES: Row =
    Row::list("services", Presence::Required, "What is offered; at least one, unless `forwards` is given.");
const FORWARDS: Row = Row::list(
    "forwards",
    Presence::Optional("nothing"),
    "The other way round: addresses here whose connections lead to services, or to the gateway's side.",
);
const LISTEN: Key<SocketAddr> = Key {
    name: "listen",
    kind: &ADDRESS,
    presence: Presence::Optional("nowhere"),
    doc: "Where the agent's own `/metrics`, `/healthz` and `/ready` listen.",
};
/// The keys of the whole file.
pub(super) const ROOT: Section = Section {
    title: "agent.yaml",
    doc: "The configuration of `adit agent -f agent.yaml`.",
    rows: &[
        GATEWAY,
        TOKEN.row(),
        IDENTITY_FILE.row(),
        SERVICES,
        FORWARDS,
        LISTEN.row(),
        shared::LOG,
        shared::DRAIN_TIMEOUT.row(),
    ],
};

const URL: Key<GatewayUrl> = Key {
    name: "url",
    kind: &GATEWAY_URL,
    presence: Presence::Required,
    doc: "The gateway's control port; 8123 unless a port is given.",
};
const URLS: Row = Row::list(
    "urls",
    Presence::Optional("the url alone"),
    "Several gateways, in place of `url`; a session is kept to each.",
);
const EACH_ADDRESS: Key<bool> = Key {
    name: "each_address",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Keeps a session to each address that a gateway's name resolves to; not through a proxy, which resolves it itself.",
};
const CARRIER: Key<Transport> = Key {
    name: "transport",
    kind: &TRANSPORT,
    presence: Presence::Default("auto"),
    doc: "What carries the session: TLS on TCP, with WebSocket or QUIC where that does not get through; or one of them only.",
};
const VERIFY: Key<Check> = Key {
    name: "verify",
    kind: &CHECK,
    presence: Presence::Optional("token, or system when ca is given"),
    doc: "How the gateway is known: by its proof of the token (any certificate), or by its certificate as well.",
};
const CA: Key<PathBuf> = Key {
    name: "ca",
    kind: &FILE,
    presence: Presence::Optional("the system's authorities"),
    doc: "PEM file with the only authorities that may have signed the gateway's certificate.",
};
const PROXY: Key<Choice> = Key {
    name: "proxy",
    kind: &EGRESS,
    presence: Presence::Optional("HTTPS_PROXY or ALL_PROXY, with NO_PROXY"),
    doc: "The proxy on the way to the gateway; it also resolves the gateway's name.",
};
const PROXY_PASSWORD: Key<SecretValue> = Key {
    name: "proxy_password",
    kind: &SECRET,
    presence: Presence::Optional("none"),
    doc: "The password of the user in `proxy`; never in this file itself.",
};
const GATEWAY_SECTION: Section = Section {
    title: "gateway",
    doc: "The gateway to connect to.",
    rows: &[
        URL.row(),
        URLS,
        EACH_ADDRESS.row(),
        CARRIER.row(),
        VERIFY.row(),
        CA.row(),
        PROXY.row(),
        PROXY_PASSWORD.row(),
    ],
};

const SERVICE_NAME: Key<Name> = Key {
    name: "service",
    kind: &SERVICE,
    presence: Presence::Optional("reached by host"),
    doc: "The name of the service that this is, instead of a host; a Bind policy has to permit it.",
};
const SERVICE_HOST: Key<HostPattern> = Key {
    name: "host",
    kind: &HOST,
    presence: Presence::Default("*"),
    doc: "The hosts it answers for: one, all below a domain, or every one that nobody else answers for.",
};
const SERVICE_PORT: Key<PortRange> = Key {
    name: "port",
    kind: &PORTS,
    presence: Presence::Optional("reached by host"),
    doc: "The gateway's TCP port it is reached by, instead of a host.",
};
const SERVICE_PORTS: Row = Row::list(
    "ports",
    Presence::Optional("reached by host"),
    "Ports and ranges it is reached by: the first leads to the upstream's port, each further one to the port after.",
);
const SERVICE_UPSTREAM: Key<Upstream> =
    Key { name: "upstream", kind: &UPSTREAM, presence: Presence::Required, doc: "What stands behind it." };
const INSECURE: Key<bool> = Key {
    name: "insecure_skip_verify",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Accepts any certificate of an https upstream.",
};
const BROWSING: Key<bool> = Key {
    name: "browsing",
    kind: &SWITCH,
    presence: Presence::Default("false"),
    doc: "Lists directories of a file upstream that have no index.html.",
};
const SERVICE_SECTION: Section = Section {
    title: "services[]",
    doc: "One offered service.",
    rows: &[
        SERVICE_NAME.row(),
        SERVICE_HOST.row(),
        SERVICE_PORT.row(),
        SERVICE_PORTS,
        SERVICE_UPSTREAM.row(),
        INSECURE.row(),
        BROWSING.row(),
    ],
};

const FORWARD_LISTEN: Key<SocketAddr> =
    Key { name: "listen", kind: &ADDRESS, presence: Presence::Required, doc: "The address to bind here." };
const FORWARD_TO: Key<Destination> = Key {
    name: "to",
    kind: &DESTINATION,
    presence: Presence::Optional("leads to a service"),
    doc: "Where the gateway connects to; it has to permit that (`tcp.client_forwarding`).",
};
const FORWARD_SERVICE: Key<Name> = Key {
    name: "service",
    kind: &SERVICE,
    presence: Presence::Optional("leads to an address"),
    doc: "The service that is dialled, instead of an address; a Dial policy has to permit it.",
};
const FORWARD_SECTION: Section = Section {
    title: "forwards[]",
    doc: "One address here that leads to an address on the gateway's side, or to a service wherever it is.",
    rows: &[FORWARD_LISTEN.row(), FORWARD_TO.row(), FORWARD_SERVICE.row()],
};

/// Every section, in the order of the reference page.
pub(crate) const SECTIONS: &[&Section] =
    &[&ROOT, &GATEWAY_SECTION, &SERVICE_SECTION, &FORWARD_SECTION, &shared::LOG_SECTION];

/// Reads an agent's file.
///
/// # Errors
/// It cannot be read, or has problems: all of them.
pub(crate) fn load(path: &Path) -> Result<Loaded<AgentSettings>, CliError> {
    super::load(path, read)
}

/// Reads the root of an agent's file.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<AgentSettings> {
    if shared::is_of_another(reader, node, &ROOT, &super::gateway::ROOT, "adit gateway") {
        return None;
    }
    let root = reader.fields(node, String::new(), &ROOT)?;
    let gateway = gateway(reader, &root);
    let credential = credential(reader, &root);
    let services = services(reader, &root);
    let forwards = forwards(reader, &root);
    let listen = reader.optional(&root, &LISTEN);
    let log = shared::log(reader, &root);
    let drain_timeout = reader.value(&root, &shared::DRAIN_TIMEOUT);
    let Gateways { urls, each_address, egress, verify } = gateway?;
    let credential = credential?;
    if matches!(credential, Credential::Identity(_)) && verify != Verify::TokenProof {
        let what = "gateway.verify and gateway.ca have no meaning with identity";
        reader.problem(
            root.key_at(GATEWAY.name),
            what,
            "remove them; the identity's file says whom to believe",
        );
    }
    Some(AgentSettings {
        config: Config {
            gateways: urls,
            each_address,
            egress,
            credential,
            verify,
            services,
            forwards,
            dials: false,
            listen,
            drain_timeout: drain_timeout?,
            process_log: None,
            revision: crate::version::SHA,
        },
        log: log?,
    })
}

fn credential(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<Credential> {
    if !root.has(IDENTITY_FILE.name) {
        let token = reader.value(root, &TOKEN)?;
        return Some(Credential::Token(TokenKey::new(token.secret.expose().as_bytes())));
    }
    if root.has(TOKEN.name) {
        let what = "token and identity are both given";
        reader.problem(root.key_at(IDENTITY_FILE.name), what, "keep one of them");
    }
    reader.written(root, &IDENTITY_FILE).map(Credential::Identity)
}

/// How gateways are reached.
struct Gateways {
    urls: Vec<GatewayUrl>,
    each_address: bool,
    egress: Egress,
    verify: Verify,
}

fn gateway(reader: &mut Reader<'_>, root: &Fields<'_>) -> Option<Gateways> {
    if !root.has(GATEWAY.name) {
        reader.problem(root.at(), "gateway is missing", "add `gateway: {url: 'wss://host:8123'}`");
        return None;
    }
    let fields = reader.map(root, GATEWAY, &GATEWAY_SECTION)?;
    let urls = urls(reader, &fields);
    let each_address = reader.value(&fields, &EACH_ADDRESS);
    let carrier = reader.written(&fields, &CARRIER);
    let check = reader.written(&fields, &VERIFY);
    let ca = reader.written(&fields, &CA);
    let egress = egress(reader, &fields);
    let mut urls = urls?;
    for url in &mut urls {
        match (url.transport, carrier) {
            (written, Some(carrier)) if !written.allows(carrier) => {
                let what = format!(
                    "{} is {}, but the url says {}://",
                    fields.path(CARRIER.name),
                    show_transport(carrier),
                    show_transport(written)
                );
                reader.problem(
                    fields.value_at(CARRIER.name),
                    what,
                    "write wss:// in the url, or leave transport out",
                );
            }
            (Transport::Auto, Some(carrier)) => url.transport = carrier,
            (_, Some(_) | None) => {}
        }
    }
    if !fields.has(CARRIER.name) {
        let transport = urls.first().map_or(Transport::Auto, |url| url.transport);
        reader.setting(fields.path(CARRIER.name), show_transport(transport).to_owned(), true);
    }
    Some(Gateways {
        urls,
        each_address: each_address?,
        verify: verify(reader, &fields, check, ca)?,
        egress: egress?,
    })
}

fn urls(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<GatewayUrl>> {
    if !fields.has(URLS.name) {
        return Some(vec![reader.value(fields, &URL)?]);
    }
    if fields.has(URL.name) {
        let what = format!("{} has both url and urls", GATEWAY.name);
        reader.problem(fields.key_at(URL.name), what, "move the url into the list");
        return None;
    }
    let urls = reader.list(fields, URLS, &GATEWAY_URL);
    let twice = urls.iter().enumerate().find(|(at, url)| urls[..*at].contains(url));
    if let Some((_, url)) = twice {
        let what = format!("{} names {url} twice", fields.path(URLS.name));
        reader.problem(fields.value_at(URLS.name), what, "a gateway has one session; name it once");
    } else if urls.is_empty() {
        let what = format!("{} names no gateway", fields.path(URLS.name));
        reader.problem(fields.value_at(URLS.name), what, "write `- wss://host:8123` for each");
    }
    (!urls.is_empty()).then_some(urls)
}

fn egress(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Egress> {
    let choice = reader.optional(fields, &PROXY);
    let password = reader.written(fields, &PROXY_PASSWORD);
    if !fields.has(PROXY.name) {
        if fields.has(PROXY_PASSWORD.name) {
            let what = format!("{} belongs to no proxy", fields.path(PROXY_PASSWORD.name));
            reader.problem(fields.key_at(PROXY_PASSWORD.name), what, "write `proxy:` as well, or remove it");
            return None;
        }
        return egress::from_environment()
            .map_err(|cause| {
                let (what, next) = cause.what_and_next();
                reader.problem(fields.at(), what, next.unwrap_or_default());
            })
            .ok();
    }
    match (choice?, password) {
        (Choice::Proxy(proxy), Some(password)) => match proxy.with_password(password.secret.expose()) {
            Ok(proxy) => Some(Egress::through(proxy)),
            Err(cause) => {
                let what = format!("{}: {cause}", fields.path(PROXY_PASSWORD.name));
                reader.problem(fields.value_at(PROXY_PASSWORD.name), what, "write the user in `proxy`");
                None
            }
        },
        (choice, _) => Some(choice.into()),
    }
}

fn verify(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    check: Option<Check>,
    ca: Option<PathBuf>,
) -> Option<Verify> {
    if check == Some(Check::Token) && fields.has(CA.name) {
        let what = format!("{} is used by no check", fields.path(CA.name));
        reader.problem(fields.key_at(CA.name), what, "write `verify: system`, or leave ca out");
        return None;
    }
    if fields.has(CA.name) {
        if check.is_none() {
            reader.setting(fields.path(VERIFY.name), "system".to_owned(), true);
        }
        return Some(Verify::Ca(ca?));
    }
    match check {
        None => reader.setting(fields.path(VERIFY.name), "token".to_owned(), true),
        Some(Check::System) => {
            reader.setting(fields.path(CA.name), "<the system's authorities>".to_owned(), true);
            return Some(Verify::System);
        }
        Some(Check::Token) => {}
    }
    Some(Verify::TokenProof)
}

fn services(reader: &mut Reader<'_>, root: &Fields<'_>) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    // Whoever only forwards need offer nothing.
    let presence = if root.has(FORWARDS.name) { Presence::Optional("nothing") } else { Presence::Required };
    for (path, node) in reader.items(root, Row { presence, ..SERVICES }) {
        let Some(fields) = reader.fields(node, path, &SERVICE_SECTION) else { continue };
        let names = names(reader, &fields);
        let upstream = reader.value(&fields, &SERVICE_UPSTREAM);
        let upstream = upstream.and_then(|upstream| options(reader, &fields, upstream));
        let (Some(names), Some(upstream)) = (names, upstream) else { continue };
        let key = [SERVICE_NAME.name, SERVICE_PORT.name, SERVICE_PORTS.name]
            .into_iter()
            .find(|key| fields.has(key));
        let key = key.unwrap_or(SERVICE_HOST.name);
        let mut upstream = Some(upstream);
        for name in names {
            let Some(this) = upstream else {
                let what = format!("{} leads to ports of the upstream beyond 65535", fields.path(key));
                reader.problem(
                    fields.value_at(key),
                    what,
                    "name fewer ports, or a lower port of the upstream",
                );
                break;
            };
            upstream = next(&this);
            let service = Service { name, upstream: this };
            if let Err(cause) = service.check() {
                let what = format!("{}: {cause}", fields.path(SERVICE_UPSTREAM.name));
                reader.problem(fields.value_at(SERVICE_UPSTREAM.name), what, "change one of the two");
                break;
            }
            if services.iter().any(|other| other.name == service.name) {
                let what = format!("{} is {} again", fields.path(key), service.name);
                let hint = "one service has one upstream; start one agent per upstream to balance";
                reader.problem(fields.value_at(key), what, hint);
            }
            services.push(service);
        }
    }
    services
}

fn forwards(reader: &mut Reader<'_>, root: &Fields<'_>) -> Vec<Forward> {
    let mut forwards: Vec<Forward> = Vec::new();
    for (path, node) in reader.items(root, FORWARDS) {
        let Some(fields) = reader.fields(node, path, &FORWARD_SECTION) else { continue };
        let listen = reader.value(&fields, &FORWARD_LISTEN);
        let to = to(reader, &fields);
        let (Some(listen), Some(to)) = (listen, to) else { continue };
        if listen.port() != 0 && forwards.iter().any(|other| other.listen == listen) {
            let what = format!("{} is {listen} again", fields.path(FORWARD_LISTEN.name));
            let hint = "give each an address of its own";
            reader.problem(fields.value_at(FORWARD_LISTEN.name), what, hint);
        }
        forwards.push(Forward { listen, to });
    }
    forwards
}

/// What a service is reached by: hosts, or one port after another.
fn to(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<To> {
    match (fields.has(FORWARD_TO.name), fields.has(FORWARD_SERVICE.name)) {
        (true, false) => reader.written(fields, &FORWARD_TO).map(To::Address),
        (false, true) => reader.written(fields, &FORWARD_SERVICE).map(To::Service),
        (both, _) => {
            let place = fields.path("");
            let place = place.trim_end_matches('.');
            let what = if both { "has both to and service" } else { "leads nowhere" };
            let hint = "write `service: NAME` for a service, or `to: HOST:PORT` for an address on the gateway's side";
            reader.problem(fields.value_at(FORWARD_TO.name), format!("{place} {what}"), hint);
            None
        }
    }
}

fn names(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<ServiceName>> {
    let keys = [SERVICE_NAME.name, SERVICE_HOST.name, SERVICE_PORT.name, SERVICE_PORTS.name];
    let given: Vec<_> = keys.into_iter().filter(|key| fields.has(key)).collect();
    if let [first, second, ..] = given[..] {
        let what = format!("{} has {first} and {second}", fields.path("").trim_end_matches('.'));
        reader.problem(
            fields.key_at(second),
            what,
            "keep one of them; each says what the service is reached by",
        );
        return None;
    }
    if fields.has(SERVICE_NAME.name) {
        return Some(vec![ServiceName::Named(reader.written(fields, &SERVICE_NAME)?)]);
    }
    let ranges = if fields.has(SERVICE_PORT.name) {
        vec![reader.written(fields, &SERVICE_PORT)?]
    } else if fields.has(SERVICE_PORTS.name) {
        reader.list(fields, SERVICE_PORTS, &PORTS)
    } else {
        return Some(vec![reader.value(fields, &SERVICE_HOST)?.into()]);
    };
    Some(ranges.iter().flat_map(|range| range.as_inner().clone()).map(ServiceName::Tcp).collect())
}

/// The upstream for the port after this one's.
fn next(upstream: &Upstream) -> Option<Upstream> {
    match upstream {
        Upstream::Tcp { host, port } => {
            Some(Upstream::Tcp { host: host.clone(), port: port.checked_add(1)? })
        }
        other => Some(other.clone()),
    }
}

/// Applies the options that only some upstreams have, and refuses them on the others.
fn options(reader: &mut Reader<'_>, fields: &Fields<'_>, upstream: Upstream) -> Option<Upstream> {
    let mut only_with = |key: &Key<bool>, scheme: &str| {
        if fields.has(key.name) {
            let what = format!("{} has no meaning for {upstream}", fields.path(key.name));
            reader.problem(
                fields.key_at(key.name),
                what,
                format!("remove it; it belongs to {scheme} upstreams"),
            );
        }
    };
    if !matches!(upstream, Upstream::Https { .. }) {
        only_with(&INSECURE, "https:");
    }
    if !matches!(upstream, Upstream::Files { .. }) {
        only_with(&BROWSING, "file:");
    }
    match upstream {
        Upstream::Https { host, port, .. } => {
            Some(Upstream::Https { host, port, verify: !reader.value(fields, &INSECURE)? })
        }
        Upstream::Files { root, .. } => {
            if !root.is_dir() {
                let what =
                    format!("{}: {} is not a directory", fields.path(SERVICE_UPSTREAM.name), root.display());
                let at = fields.value_at(SERVICE_UPSTREAM.name);
                reader.problem(at, what, "name one that exists and that this user may read");
            }
            Some(Upstream::Files { root, browsing: reader.value(fields, &BROWSING)? })
        }
        other @ (Upstream::Http { .. } | Upstream::Tcp { .. } | Upstream::Unix(_) | Upstream::Status(_)) => {
            Some(other)
        }
    }
}
