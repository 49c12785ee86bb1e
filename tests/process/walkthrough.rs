//! The demonstration that people know from the neighbouring tool, typed as it is written, under our name.

use std::net::SocketAddr;

use adit_testkit::ports;
use serde_json::Value;

use crate::support::http::{self, Request};
use crate::support::process::{Process, run};
use crate::support::secrets;
use crate::support::tools::{self, curl, shell};
use crate::support::wait::{SOON, until};
use crate::support::world::{World, ask};

/// What the demonstration has running, in the order it is started.
struct Demonstration {
    world: World,
    token: String,
    public: SocketAddr,
    control: SocketAddr,
    files: SocketAddr,
    running: Vec<Process>,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new([127, 0, 0, 1].into(), port)
}

impl Demonstration {
    fn start() -> Self {
        let recipe = "export TOKEN=$(head -c 16 /dev/urandom| shasum | cut -d \" \" -f 1)\necho $TOKEN";
        let token = run(&mut shell(recipe)).ok().trim().to_owned();
        assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
        secrets::keep(&token);
        let world = World::new();
        world.write("uname.txt", "Linux demo\n");
        let mut demonstration =
            Self { world, token, public: local(0), control: local(0), files: local(0), running: Vec::new() };
        demonstration.start_server();
        demonstration.start_files();
        demonstration.start_client();
        demonstration
    }

    /// Types a line that keeps running.
    fn type_line(&self, name: &str, line: &str) -> Process {
        let mut command = self.world.here(shell(&format!("exec {line}")));
        Process::start(name, command.env("TOKEN", &self.token))
    }

    /// Starts what listens on ports that were chosen before; chooses others when they were taken meanwhile.
    fn with_ports<const N: usize>(
        &mut self,
        name: &str,
        line: impl Fn([u16; N]) -> String,
        started: &[&str],
    ) -> [SocketAddr; N] {
        for _ in 0..10 {
            let chosen = std::array::from_fn(|_| ports::free());
            let mut process = self.type_line(name, &line(chosen));
            if process.line_or(started, &["cannot listen on"]).is_some() {
                self.running.push(process);
                return chosen.map(local);
            }
        }
        panic!("ten times a port was taken between its choice and its use");
    }

    fn start_server(&mut self) {
        let line = |[port, control]: [u16; 2]| {
            format!(
                "adit http server --token $TOKEN --auto-tls=true --auto-tls-san=localhost --port {port} \
                 --control-port {control}"
            )
        };
        [self.public, self.control] = self.with_ports("server", line, &["listening", "purpose=\"http\""]);
    }

    fn start_files(&mut self) {
        let line = |[port]: [u16; 1]| format!("adit fileserver -w ./ --allow-browsing --port {port}");
        [self.files] = self.with_ports("fileserver", line, &["Serving: "]);
        let old = |[port]: [u16; 1]| format!("adit http fileserver -w ./ --allow-browsing --port {port}");
        let [files] = self.with_ports("old fileserver", old, &["Serving: "]);
        let version = self.version();
        let old = self.running.last().unwrap();
        assert!(old.stderr().contains("`adit http fileserver` is now `adit fileserver`"), "{old}");
        let [new, old] = [1, 2].map(|at| self.running[at].stdout());
        for (said, addr) in [(new, self.files), (old, files)] {
            let lines: Vec<&str> = said.lines().collect();
            let expected = [
                format!("Starting Adit fileserver. Version: {version}"),
                format!("Serving: ./, on {addr}, browsing: true, auth: false"),
            ];
            assert_eq!(lines, expected);
            assert_eq!(http::text(addr, "localhost", "/uname.txt"), Ok("Linux demo\n".to_owned()));
        }
    }

    fn start_client(&mut self) {
        let (control, files) = (self.control.port(), self.files);
        let client = self.type_line(
            "client",
            &format!(
                "adit http client --token $TOKEN --url wss://localhost:{control} --upstream http://{files}"
            ),
        );
        self.running.push(client);
        self.running.last_mut().unwrap().line(&["session opened"]);
    }

    /// `VERSION - COMMIT`, as the binary says it.
    fn version(&self) -> String {
        let said = self.world.run(&["version"]).ok();
        said.trim().strip_prefix("Adit version: ").unwrap().to_owned()
    }

    fn status_json(&self) -> Value {
        let line = format!(
            "curl -ksLS https://127.0.0.1:{}/status -H \"Authorization: Bearer $TOKEN\"",
            self.control.port()
        );
        let said = run(self.world.here(shell(&line)).env("TOKEN", &self.token)).ok();
        serde_json::from_str(&said).unwrap()
    }
}

/// The answer of `curl -i` as status line, fields in lower case, and body.
fn parts(answer: &str) -> (String, Vec<String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    (status, lines.map(str::to_lowercase).collect(), body.to_owned())
}

#[test]
fn files_are_served_through_the_tunnel_as_the_walk_through_shows() {
    let demonstration = Demonstration::start();
    let url = |path| format!("http://{}{path}", demonstration.public);
    assert_eq!(run(&mut curl(&[&url("/uname.txt")])).ok(), "Linux demo\n");

    let (status, fields, body) = parts(&run(&mut curl(&["-i", &url("/uname.txt")])).ok());
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(fields.contains(&"content-length: 11".to_owned()), "{fields:?}");
    assert!(fields.contains(&"content-type: text/plain; charset=utf-8".to_owned()), "{fields:?}");
    assert_eq!(body, "Linux demo\n");

    let (status, mut fields, body) = parts(&run(&mut curl(&["-i", &url("/uptime.txt")])).ok());
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    fields.retain(|field| !field.starts_with("date: "));
    fields.sort();
    assert_eq!(
        fields,
        ["content-length: 30", "content-type: text/plain; charset=utf-8", "x-content-type-options: nosniff"]
    );
    assert_eq!(body, "unable to find requested file\n");

    let listing = run(&mut curl(&[&url("/")])).ok();
    assert!(listing.contains("uname.txt"), "{listing}");
}

/// `YYYY-MM-DDTHH:MM:SS.fraction` and a zone.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let Some((whole, rest)) = shape.split_once('.') else { return false };
    let zone = rest.trim_start_matches('9');
    whole == "9999-99-99T99:99:99" && zone.len() < rest.len() && matches!(zone, "Z" | "+99:99" | "-99:99")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn status_shows_who_is_connected_in_the_known_layout_and_as_json() {
    assert!(is_time("2021-08-13T12:23:17.321388+01:00") && is_time("2026-01-02T03:04:05.6Z"));
    assert!(!is_time("2021-08-13T12:23:17Z") && !is_time("2021-08-13 12:23:17.3Z"));
    let demonstration = Demonstration::start();
    let json = demonstration.status_json();
    let (info, client) = (&json["info"], &json["clients"][0]);
    assert_eq!(keys(&json), ["clients", "info"]);
    assert_eq!(keys(info), ["hostname", "mode", "sha", "startTime", "version"]);
    assert_eq!(
        keys(client),
        ["clientID", "identity", "identityKind", "remoteAddr", "since", "transport", "upstreams"]
    );
    assert_eq!(json["clients"].as_array().unwrap().len(), 1);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert!(is_time(&text(&info["startTime"])) && is_time(&text(&client["since"])), "{json}");
    assert_eq!(info["mode"], "http");
    let version = demonstration.version();
    assert_eq!(format!("{} - {}", text(&info["version"]), text(&info["sha"])), version);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(info["hostname"], hostname.trim());
    let id = text(&client["clientID"]);
    let is_id = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(id.len() == 32 && id.chars().all(is_id), "{id}");
    let remote: SocketAddr = text(&client["remoteAddr"]).parse().unwrap();
    assert!(remote.ip().is_loopback());
    let upstream = format!("*=http://{}", demonstration.files);
    assert_eq!(client["upstreams"], serde_json::json!([upstream]));

    let (world, token) = (&demonstration.world, &demonstration.token);
    let url = format!("wss://{}", demonstration.control);
    let said = world.run(&["status", "--url", &url, "--token", token, "--auto-tls"]).ok();
    let lines: Vec<&str> = said.lines().collect();
    let number = |text: &str| text.split(' ').next().and_then(|word| word.parse::<u32>().ok()).is_some();
    assert_eq!(lines.len(), 9, "{said}");
    assert_eq!(lines[0], format!("Querying server status. Version {version}"));
    assert_eq!(lines[1], "Server info:");
    assert_eq!(lines[2], format!("Hostname: {}", hostname.trim()));
    let started = lines[3].strip_prefix("Started: ").unwrap();
    assert!(number(started) && (started.ends_with(" seconds") || started.ends_with(" second")), "{said}");
    assert_eq!(lines[4], "Mode: http");
    assert_eq!(lines[5], format!("Version: {}", text(&info["version"])));
    assert_eq!(lines[6], "Connected clients:");
    let table = run(world.adit(&["status", "--url", &url, "--token-env", "TOKEN"]).env("TOKEN", token)).ok();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(7)
        .map(|row| row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["Client ID", "Remote Address", "Connected", "Upstreams"]);
    assert_eq!(rows[1][..2], [id.as_str(), &remote.to_string()]);
    assert!(number(rows[1][2]), "{said}");
    assert_eq!(rows[1][3..], [upstream.as_str()]);

    let said =
        run(world.adit(&["status", "-o", "json", "--url", &url, "--token-env", "TOKEN"]).env("TOKEN", token));
    assert_eq!(serde_json::from_str::<Value>(&said.ok()).unwrap(), json);
}

/// A Prometheus that scrapes as the walk-through says, only more often.
struct Prometheus {
    _process: Process,
    addr: SocketAddr,
}

impl Prometheus {
    fn start(demonstration: &Demonstration) -> Self {
        let world = &demonstration.world;
        for _ in 0..10 {
            let addr = local(ports::free());
            let file = world.write(
                "prometheus.yml",
                &format!(
                    "global:\n  scrape_interval: 500ms\n  evaluation_interval: 500ms\n\nscrape_configs:\n  \
                     - job_name: 'prometheus'\n    static_configs:\n      - targets: ['localhost:{}']\n  \
                     - job_name: 'http-tunnel'\n    scheme: https\n    authorization:\n      type: Bearer\n      \
                     credentials: {}\n    tls_config:\n      insecure_skip_verify: true\n    static_configs:\n      \
                     - targets: ['localhost:{}']\n",
                    addr.port(),
                    demonstration.token,
                    demonstration.control.port(),
                ),
            );
            let checked = run(tools::command(&tools::find("promtool")).args(["check", "config"]).arg(&file));
            assert_eq!(checked.code, 0, "{checked:#?}");
            let mut command = world.here(tools::command(&tools::find("prometheus")));
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", world.path("prometheus-data").display()))
                .arg(format!("--web.listen-address={addr}"));
            let mut process = Process::start("prometheus", &mut command);
            if process
                .line_or(&["Server is ready to receive web requests"], &["address already in use"])
                .is_some()
            {
                return Self { _process: process, addr };
            }
        }
        panic!("ten times a port was taken between its choice and its use");
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let said = http::text(self.addr, "prometheus", path)?;
        serde_json::from_str(&said).map_err(|error| error.to_string())
    }

    /// Waits until a query has a value above zero, and returns what it yields.
    #[track_caller]
    fn shows(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        until(query, SOON, || {
            let said = self.ask(&format!("/api/v1/query?query={encoded}"))?;
            let result = said["data"]["result"].as_array().cloned().unwrap_or_default();
            let value = |row: &Value| row["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
            if result.iter().filter_map(value).any(|value| value > 0.0) {
                Ok(result)
            } else {
                Err(said.to_string())
            }
        })
    }
}

#[test]
fn prometheus_scrapes_the_gateway_and_every_query_of_the_walk_through_answers() {
    let mut demonstration = Demonstration::start();
    let prometheus = Prometheus::start(&demonstration);
    until("both targets are up", SOON, || {
        let said = prometheus.ask("/api/v1/targets?state=active")?;
        let targets = said["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let mut up: Vec<&str> = targets
            .iter()
            .filter(|target| target["health"] == "up")
            .filter_map(|t| t["labels"]["job"].as_str())
            .collect();
        up.sort_unstable();
        if up == ["http-tunnel", "prometheus"] { Ok(()) } else { Err(said.to_string()) }
    });
    let connected = prometheus.shows("http_controlplane_connected_gauge");
    assert_eq!((connected.len(), &connected[0]["value"][1]), (1, &Value::from("1")));

    // A second client brings a service that fails and one that asks for a password.
    let line = format!(
        "adit http client --token $TOKEN --url wss://localhost:{} \
         --upstream broken.example.com=http_status:500,locked.example.com=http_status:401",
        demonstration.control.port()
    );
    let mut client = demonstration.type_line("second client", &line);
    client.line(&["session opened"]);
    demonstration.running.push(client);
    let get = |host, path| http::once(demonstration.public, &Request::get(host, path)).unwrap().status;
    assert_eq!(get("localhost", "/uname.txt"), 200);
    assert_eq!(get("broken.example.com", "/"), 500);
    assert_eq!(get("locked.example.com", "/"), 401);

    for query in ["http_dataplane_requests_total{}", "http_dataplane_requests_total{method=\"GET\"}"] {
        let codes: Vec<String> = until(query, SOON, || {
            let mut codes: Vec<String> = prometheus
                .shows(query)
                .iter()
                .map(|row| row["metric"]["code"].as_str().unwrap_or_default().to_owned())
                .collect();
            codes.sort();
            if codes.len() == 3 { Ok(codes) } else { Err(format!("{codes:?}")) }
        });
        assert_eq!(codes, ["200", "401", "500"]);
    }
    let failed = prometheus.shows("http_dataplane_requests_total{code=\"500\"}");
    assert_eq!(failed[0]["metric"]["host"], "broken.example.com");
    // A rate needs an increase between two scrapes that both saw the series.
    prometheus.shows("http_dataplane_requests_total{code=\"401\"}");
    assert_eq!(get("locked.example.com", "/"), 401);
    prometheus.shows("rate(http_dataplane_requests_total{code=\"401\"}[5m])");
}

#[test]
fn the_control_port_answers_nobody_without_the_token() {
    let demonstration = Demonstration::start();
    for path in ["/status", "/metrics"] {
        let url = format!("https://{}{path}", demonstration.control);
        let none = run(&mut curl(&["-ki", &url])).ok();
        let wrong = run(&mut curl(&["-ki", "-H", "Authorization: Bearer not-the-token", &url])).ok();
        for answer in [none, wrong] {
            let (status, fields, _) = parts(&answer);
            assert_eq!(status, "HTTP/1.1 401 Unauthorized");
            assert!(fields.contains(&"www-authenticate: bearer realm=\"adit\"".to_owned()), "{fields:?}");
        }
    }
    let right = ask(demonstration.control, &demonstration.token, "/status");
    assert_eq!(right.code, 0);
    let world = &demonstration.world;
    let url = format!("wss://{}", demonstration.control);
    let refused =
        run(world.adit(&["status", "--url", &url, "--token-env", "OTHER"]).env("OTHER", "not-the-token"));
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.err.contains("refuses the token from --token-env OTHER"), "{refused:#?}");
    assert!(refused.err.contains("\n next: "), "{refused:#?}");
    until("the failures are counted", SOON, || {
        let metrics = ask(demonstration.control, &demonstration.token, "/metrics").ok();
        let line = "adit_auth_failures_total{reason=\"unauthorized\"} 3";
        if metrics.lines().any(|found| found == line) { Ok(()) } else { Err(metrics) }
    });
}
