//! Names, types, labels and meanings of every family, in one table: registered from here and documented from here.

use adit_telemetry::families::{Described, family, help};
use adit_telemetry::logs::{LineWriter, Switch, register_log_metrics};
use adit_telemetry::{process, runtime};

use adit_tunnel::workers::Workers;

use super::Inner;

/// Every family a gateway adds to the process and runtime ones.
pub const FAMILIES: &[Described] = &[
    family("http_controlplane_connected_gauge", "gauge", "", "Agents connected now"),
    family(
        "http_controlplane_requests_total",
        "counter",
        "code,path",
        "Requests to the control port, by status and path; sessions count as /connect",
    ),
    family(
        "http_dataplane_requests_total",
        "counter",
        "code,host,method",
        "Requests to public listeners, by status, matched host and method",
    ),
    family(
        "http_dataplane_request_duration_seconds",
        "histogram",
        "code,host,method",
        "Time from the head of a request to the last byte of its response",
    ),
    family("tcp_controlplane_connected_gauge", "gauge", "", "Agents connected now that offer TCP services"),
    family(
        "tcp_controlplane_requests_total",
        "counter",
        "code,path",
        "The same as http_controlplane_requests_total, under the name that TCP tunnels have for it",
    ),
    family(
        "tcp_dataplane_connections_gauge",
        "gauge",
        "port",
        "Connections of TCP services open now, by port",
    ),
    family("tcp_dataplane_connections_total", "counter", "port", "Connections of TCP services, by port"),
    family(
        "adit_service_bytes_total",
        "counter",
        "service,direction",
        "Bytes of bodies and of upgraded and TCP connections as they move, by service and direction",
    ),
    family(
        "adit_refusals_total",
        "counter",
        "reason",
        "Requests and TCP connections the gateway refused or had to cut, by reason; see the list of reasons",
    ),
    family("adit_flows", "gauge", "", "Requests, upgraded connections and TCP connections being carried now"),
    family("adit_public_connections", "gauge", "", "Connections to public listeners open now"),
    family("adit_sessions", "gauge", "transport", "Sessions that stand now, by transport"),
    family(
        "adit_session_handshakes_total",
        "counter",
        "transport,tls",
        "Sessions that were opened, by transport and by how TLS began: full, or resumed with a ticket",
    ),
    family("adit_sessions_opened_total", "counter", "", "Sessions that were opened by agents"),
    family("adit_sessions_ended_total", "counter", "reason", "Sessions that ended, by reason"),
    family(
        "adit_session_takeovers_total",
        "counter",
        "",
        "Sessions that replaced an older one of the same agent, that is: reconnects the gateway had not noticed",
    ),
    family(
        "adit_dials_total",
        "counter",
        "",
        "Dials of services by agents, whether or not they were permitted",
    ),
    family(
        "adit_offers_denied_total",
        "counter",
        "reason",
        "Offers of agents that were not taken when they came, by reason",
    ),
    family("adit_grants", "gauge", "", "Rights in use: pairs of a service and somebody who may reach it"),
    family(
        "adit_revocations_total",
        "counter",
        "kind",
        "What was ended because it is not permitted any more: session, offer, stream",
    ),
    family(
        "adit_canary_round_trip_seconds",
        "histogram",
        "",
        "Time of canaries through sessions to their agents and back",
    ),
    family(
        "adit_canary_failures_total",
        "counter",
        "reason",
        "Canaries that did not come back; a session is replaced after the second in a row",
    ),
    family(
        "adit_canary_last_success_timestamp_seconds",
        "gauge",
        "",
        "When a canary came back last, in seconds since 1970",
    ),
    family(
        "adit_auth_failures_total",
        "counter",
        "reason",
        "Failed authentications on the control port: unauthorized, revoked, or rate_limited after too many of those",
    ),
    family(
        "adit_admin_requests_total",
        "counter",
        "endpoint,code",
        "Requests to the admin interface, by endpoint and status",
    ),
    family(
        "adit_changes_total",
        "counter",
        "kind,action,result",
        "Changes to resources and credentials, by kind and action; the result is done, or why it was refused",
    ),
    family("adit_resources", "gauge", "kind", "Resources there are, by kind"),
    family(
        "adit_store_up",
        "gauge",
        "",
        "1 while the store answers; while it does not, the last resources stay in force",
    ),
    family(
        "adit_store_writable",
        "gauge",
        "",
        "1 unless the last change could not be written, as on a full disk; until one can, nobody is let in anew or kept out",
    ),
    family("adit_store_revision", "gauge", "", "The last transaction that is in force"),
    family("adit_snapshot_generation", "gauge", "", "Counts what was published for decisions"),
    family("adit_snapshot_compile_seconds", "gauge", "", "How long the last compilation for decisions took"),
    family(
        "adit_snapshot_age_seconds",
        "gauge",
        "",
        "How long ago something was published for decisions last",
    ),
    family("adit_audit_records", "gauge", "", "Records in the audit log"),
    family("adit_audit_dropped_total", "counter", "", "Records that left the audit log for newer ones"),
];

/// Registers everything; the names are those of the table.
pub(super) fn register(
    inner: &Inner,
    process_log: Option<LineWriter>,
    revision: &'static str,
    workers: &Workers,
) {
    let metrics = &inner.metrics;
    macro_rules! add {
        ($name:literal, $metric:expr) => {
            metrics.register(
                $name.strip_suffix("_total").unwrap_or($name),
                help(FAMILIES, $name),
                $metric.clone(),
            )
        };
    }
    add!("http_controlplane_connected_gauge", inner.connected);
    add!("http_controlplane_requests_total", inner.control_requests);
    add!("http_dataplane_requests_total", inner.traffic.requests);
    add!("http_dataplane_request_duration_seconds", inner.traffic.durations);
    add!("tcp_controlplane_connected_gauge", inner.tcp_connected);
    add!("tcp_controlplane_requests_total", inner.control_requests);
    add!("tcp_dataplane_connections_gauge", inner.ports.open);
    add!("tcp_dataplane_connections_total", inner.ports.accepted);
    add!("adit_service_bytes_total", inner.traffic.bytes);
    add!("adit_refusals_total", inner.refusals);
    add!("adit_flows", inner.flows);
    add!("adit_public_connections", inner.connections);
    add!("adit_sessions", inner.sessions);
    add!("adit_session_handshakes_total", inner.handshakes);
    add!("adit_sessions_opened_total", inner.sessions_opened);
    add!("adit_sessions_ended_total", inner.sessions_ended);
    add!("adit_session_takeovers_total", inner.takeovers);
    add!("adit_dials_total", inner.dials);
    add!("adit_offers_denied_total", inner.offers_denied);
    add!("adit_grants", inner.grants);
    add!("adit_revocations_total", inner.revocations);
    add!("adit_canary_round_trip_seconds", inner.canaries.round_trips);
    add!("adit_canary_failures_total", inner.canaries.failures);
    add!("adit_canary_last_success_timestamp_seconds", inner.canaries.last_success);
    add!("adit_auth_failures_total", inner.auth_failures);
    add!("adit_admin_requests_total", inner.admin.requests);
    add!("adit_changes_total", inner.admin.changes);
    metrics.register_collector(inner.admin.resources.clone());
    inner.config.register(metrics);
    process::register(metrics);
    process::register_build_info(metrics, env!("CARGO_PKG_VERSION"), revision);
    runtime::register(metrics, workers.runtimes());
    let logs = [("request", inner.log.clone()), ("process", Switch::new(process_log))];
    register_log_metrics(metrics, &logs);
}
