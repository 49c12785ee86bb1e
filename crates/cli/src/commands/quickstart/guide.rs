//! What is running, and what to try with it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Which service is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposed {
    /// The sample.
    Sample,
    /// The user's own.
    Yours,
}

/// What is running where.
#[derive(Debug)]
pub(super) struct Guide {
    /// Which service is exposed.
    pub(super) exposed: Exposed,
    /// Where it is.
    pub(super) upstream: String,
    /// The gateway's public listener.
    pub(super) http: SocketAddr,
    /// The gateway's control port.
    pub(super) control: SocketAddr,
    /// The agent's own metrics.
    pub(super) agent: Option<SocketAddr>,
    /// The token.
    pub(super) token_file: PathBuf,
    /// The authority behind the control port's certificate, when there is a file of it.
    pub(super) ca_file: Option<PathBuf>,
}

impl Guide {
    /// A configuration that a stock Prometheus starts with.
    pub(super) fn prometheus(&self) -> String {
        let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        let tls = self.ca_file.as_ref().map_or_else(
            || "insecure_skip_verify: true".to_owned(),
            |file| format!("ca_file: {}", quoted(file)),
        );
        let mut text = format!(
            "global:\n  scrape_interval: 15s\n  evaluation_interval: 15s\n\nscrape_configs:\n  # The gateway.\n  \
             - job_name: http-tunnel\n    scheme: https\n    authorization:\n      type: Bearer\n      \
             credentials_file: {}\n    tls_config:\n      {tls}\n    static_configs:\n      - targets: [\"{}\"]\n",
            quoted(&self.token_file),
            self.control,
        );
        if let Some(agent) = self.agent {
            let _infallible = write!(
                text,
                "  # The agent.\n  - job_name: agent\n    static_configs:\n      - targets: [\"{agent}\"]\n"
            );
        }
        if self.exposed == Exposed::Sample {
            let _infallible = write!(
                text,
                "  # The private service, through the tunnel.\n  - job_name: sample\n    static_configs:\n      \
                 - targets: [\"{}\"]\n",
                self.http
            );
        }
        text
    }

    /// What is printed.
    pub(super) fn text(&self, prometheus: &Path) -> String {
        let Self { http, control, upstream, .. } = self;
        let token = self.token_file.display();
        let what = match self.exposed {
            Exposed::Sample => "a sample service",
            Exposed::Yours => "your service",
        };
        let mut text = format!(
            "\nPublic URL   http://{http}  ->  {what} at {upstream}\n\
             Metrics      https://{control}/metrics  (with the token)\n"
        );
        if let Some(agent) = self.agent {
            let _infallible = writeln!(text, "             http://{agent}/metrics  (the agent's own)");
        }
        let _infallible = write!(
            text,
            "Token        {token}\n\nWho is connected:\n\n  adit status --url wss://{control} --token-file {token} --auto-tls\n\n\
             Try:\n\n  curl -i http://{http}/\n"
        );
        if self.exposed == Exposed::Sample {
            let _infallible =
                write!(text, "  curl -i http://{http}/hello\n  curl -s http://{http}/metrics\n");
        }
        let verify = self
            .ca_file
            .as_ref()
            .map_or_else(|| "-k".to_owned(), |file| format!("--cacert {}", file.display()));
        let _infallible = write!(
            text,
            "  curl -s {verify} -H \"Authorization: Bearer $(cat {token})\" https://{control}/metrics\n\n\
             Scrape it all with Prometheus:\n\n  prometheus --config.file={}\n\nwhich reads:\n\n",
            prometheus.display()
        );
        for line in self.prometheus().lines() {
            let _infallible = writeln!(text, "{}", format!("  {line}").trim_end());
        }
        text.push_str("\nCtrl-C stops everything and removes the files.\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guide(exposed: Exposed, ca_file: Option<PathBuf>) -> Guide {
        Guide {
            exposed,
            upstream: "http://127.0.0.1:3000".into(),
            http: "127.0.0.1:8000".parse().unwrap(),
            control: "127.0.0.1:8123".parse().unwrap(),
            agent: Some("127.0.0.1:9".parse().unwrap()),
            token_file: "/tmp/a \"b\"/token".into(),
            ca_file,
        }
    }

    #[test]
    fn the_prometheus_file_is_valid_yaml_with_the_token_by_file() {
        let text = guide(Exposed::Sample, Some("/tmp/ca.crt".into())).prometheus();
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let jobs = yaml["scrape_configs"].as_array().unwrap();
        assert_eq!(jobs.len(), 3);
        assert_eq!(jobs[0]["authorization"]["credentials_file"], "/tmp/a \"b\"/token");
        assert_eq!(jobs[0]["tls_config"]["ca_file"], "/tmp/ca.crt");
        assert_eq!(jobs[2]["static_configs"][0]["targets"][0], "127.0.0.1:8000");
        let text = guide(Exposed::Yours, None).prometheus();
        let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(yaml["scrape_configs"][0]["tls_config"]["insecure_skip_verify"], true);
        assert_eq!(yaml["scrape_configs"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_guide_names_what_to_copy() {
        let text = guide(Exposed::Sample, None).text(Path::new("/tmp/prometheus.yml"));
        for part in [
            "http://127.0.0.1:8000  ->  a sample service at http://127.0.0.1:3000",
            "adit status --url wss://127.0.0.1:8123 --token-file",
            "https://127.0.0.1:8123/metrics",
            "curl -i http://127.0.0.1:8000/hello",
            "prometheus --config.file=/tmp/prometheus.yml",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
