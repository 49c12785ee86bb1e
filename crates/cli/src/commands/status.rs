//! `adit status`: who is connected, since when, and what they expose.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::AccessArgs;
use crate::control_client;
use crate::duration::in_words;
use crate::error::CliError;
use crate::output::{self, printable, table};
use crate::version::{SHA, VERSION};

/// How a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For people, with what carries each session.
    Wide,
    /// For programs.
    Json,
}

/// Flags of `adit status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  adit status                    of the gateway logged in to
  adit status --url wss://gateway.example.com:8123 --token-file token
  adit status -o wide --url wss://gateway.example.com:8123 --identity-file alice.json")]
pub(crate) struct Args {
    #[command(flatten)]
    access: AccessArgs,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The answer of `/status`.
#[derive(Debug, Deserialize)]
struct Status {
    info: Info,
    #[serde(default)]
    clients: Option<Vec<Client>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    version: String,
    mode: String,
    start_time: String,
    hostname: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    #[serde(rename = "clientID")]
    client_id: String,
    remote_addr: String,
    since: String,
    #[serde(default)]
    upstreams: Vec<String>,
    #[serde(default)]
    transport: String,
    #[serde(default)]
    unreachable: Vec<String>,
}

/// Asks the gateway and prints its answer.
///
/// # Errors
/// The flags are wrong, or the gateway does not answer as it should.
pub(crate) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let target = args.access.target()?;
    let url = target.url.clone();
    if args.output != Format::Json {
        output::line(format_args!("Querying server status. Version {VERSION} - {SHA}"));
    }
    let body = control_client::get(target, "/status").await?;
    let garbled = |cause: serde_json::Error| {
        CliError::failure(format!("{url} answered something that is not a status")).caused_by(&cause).next(
            "check that the URL names a gateway's control port, and compare `adit version` on both sides",
        )
    };
    match args.output {
        Format::Json => {
            // Passed on as it came, once it is known to be JSON and so to hold nothing a terminal would obey.
            let _is_json: serde::de::IgnoredAny = serde_json::from_slice(&body).map_err(garbled)?;
            output::line(String::from_utf8_lossy(&body).trim_end());
        }
        format @ (Format::Text | Format::Wide) => {
            let status: Status = serde_json::from_slice(&body).map_err(garbled)?;
            output::print(&text(&status, format, OffsetDateTime::now_utc()));
            unreachable(&status).iter().for_each(output::warning);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The layout for people, which scripts read as well: it does not change. What is new goes into the wide one.
fn text(status: &Status, format: Format, now: OffsetDateTime) -> String {
    let Info { version, mode, start_time, hostname } = &status.info;
    let is_http = mode == "http";
    let mut text = String::new();
    if is_http {
        text.push_str("Server info:\n");
    }
    let _infallible = write!(
        text,
        "Hostname: {hostname}\nStarted: {}\nMode: {mode}\nVersion: {version}\n",
        since(start_time, now)
    );
    text.push_str(if is_http { "Connected clients:\n" } else { "\n" });
    let is_wide = format == Format::Wide;
    let rows: Vec<Vec<String>> = status
        .clients
        .iter()
        .flatten()
        .map(|client| {
            let mut row = vec![
                printable(&client.client_id),
                printable(&client.remote_addr),
                since(&client.since, now),
                printable(&client.upstreams.join(", ")),
            ];
            if is_wide {
                row.insert(3, printable(&client.transport));
            }
            row
        })
        .collect();
    let mut titles = vec!["Client ID", "Remote Address", "Connected", "Upstreams"];
    if is_wide {
        titles.insert(3, "Transport");
    }
    text.push_str(&table(&titles, &rows));
    text
}

/// What is offered and nobody can reach, for each client that does. Not part of the table: that has its layout.
fn unreachable(status: &Status) -> Vec<String> {
    let clients = status.clients.iter().flatten().filter(|client| !client.unreachable.is_empty());
    clients
        .map(|client| {
            format!(
                "nobody reaches {} of {}: this gateway has no HTTP listener\n next: give it one (http in gateway.yaml), \
                 or offer a port instead (adit tcp client)",
                printable(&client.unreachable.join(", ")),
                printable(&client.client_id)
            )
        })
        .collect()
}

fn since(moment: &str, now: OffsetDateTime) -> String {
    OffsetDateTime::parse(moment, &Rfc3339).map_or_else(
        |_not_a_time| printable(moment),
        |then| in_words(Duration::try_from(now - then).unwrap_or(Duration::ZERO)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let now = OffsetDateTime::parse("2021-08-14T12:23:17.5+01:00", &Rfc3339).unwrap();
        text(&serde_json::from_str(json).unwrap(), Format::Text, now)
    }

    #[test]
    fn the_wide_layout_says_what_carries_each_session() {
        let json = r#"{"info":{"version":"1","mode":"http","startTime":"soon","hostname":"h"},"clients":[
            {"clientID":"a","remoteAddr":"b","since":"c","upstreams":["*=d"],"transport":"tls"}]}"#;
        let text = text(&serde_json::from_str(json).unwrap(), Format::Wide, OffsetDateTime::now_utc());
        assert!(
            text.ends_with(
                "Connected  Transport  Upstreams\na          b               c          tls        *=d\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_http_gateway_is_shown_as_people_know_it() {
        let json = r#"{"info":{"version":"0.8.9-18-gf4fc15b","sha":"f4fc15b9604e","mode":"http",
            "startTime":"2021-08-13T12:23:17.321388+01:00","hostname":"am1.local"},
            "clients":[{"clientID":"0c5f2a1ca0174ee3a177c3be7cd6d950","remoteAddr":"[::1]:63671",
            "since":"2021-08-14T12:08:10.72286+01:00",
            "upstreams":["example.com=http://localhost:8000","prometheus.example.com=http://localhost:9090"]}]}"#;
        assert_eq!(
            shown(json),
            "\
Server info:
Hostname: am1.local
Started: 1 day
Mode: http
Version: 0.8.9-18-gf4fc15b
Connected clients:
Client ID                         Remote Address  Connected   Upstreams
0c5f2a1ca0174ee3a177c3be7cd6d950  [::1]:63671     15 minutes  example.com=http://localhost:8000, prometheus.example.com=http://localhost:9090
"
        );
    }

    #[test]
    fn what_nobody_reaches_is_told_beside_the_table() {
        let json = r#"{"info":{"version":"1","mode":"tcp","startTime":"soon","hostname":"h"},"clients":[
            {"clientID":"a","remoteAddr":"b","since":"c","upstreams":["a.example=http://d","localhost:1"],
             "unreachable":["a.example","b.example"]},
            {"clientID":"e","remoteAddr":"f","since":"g","upstreams":["localhost:1"]}]}"#;
        assert_eq!(
            unreachable(&serde_json::from_str(json).unwrap()),
            [
                "nobody reaches a.example, b.example of a: this gateway has no HTTP listener\n next: give it one (http in \
              gateway.yaml), or offer a port instead (adit tcp client)"
            ]
        );
    }

    #[test]
    fn a_tcp_gateway_has_no_headings() {
        let json = r#"{"info":{"version":"0.8.9-rc1","sha":"x","mode":"tcp",
            "startTime":"2021-08-14T11:34:17.5+01:00","hostname":"unruffled-banzai4"},
            "clients":[{"clientID":"730aa1bb96474cbc9f7e76c135e81da8","remoteAddr":"81.99.136.188:58102",
            "since":"2021-08-14T11:23:07.5Z","upstreams":["localhost:8001","localhost:8000"]}]}"#;
        assert_eq!(
            shown(json),
            "\
Hostname: unruffled-banzai4
Started: 49 minutes
Mode: tcp
Version: 0.8.9-rc1

Client ID                         Remote Address       Connected   Upstreams
730aa1bb96474cbc9f7e76c135e81da8  81.99.136.188:58102  10 seconds  localhost:8001, localhost:8000
"
        );
    }

    #[test]
    fn nobody_connected_is_a_table_without_rows_and_odd_text_does_no_harm() {
        let json =
            r#"{"info":{"version":"1","mode":"http","startTime":"soon","hostname":"h"},"clients":null}"#;
        let text = shown(json);
        assert!(text.contains("Started: soon\n") && text.ends_with("Upstreams\n"), "{text}");
        assert_eq!(printable("a\u{1b}[31m"), "a\u{fffd}[31m");
    }
}
