//! Who is compared: one entry of [`PEERS`] and one function that starts it for each.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::owned::{Owned, free_port, wait_until_ready};
use crate::process::{find, program, read};

/// Something that stands between the load and the upstream.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// What is compared, for the report.
    pub(super) about: &'static str,
    /// The programs it needs and the Debian packages they come from.
    pub(super) needs: &'static [(&'static str, &'static str)],
    /// Starts it in front of the upstream and waits until it answers.
    pub(super) start: fn(&Place) -> Result<Started>,
}

/// To add a peer: one entry here, and a function that writes its configuration and starts it.
pub(super) const PEERS: &[Peer] = &[
    Peer { name: "direct", about: "no hop: the upstream itself", needs: &[], start: direct },
    Peer {
        name: "nginx",
        about: "one plain hop, one worker",
        needs: &[("nginx", "nginx-light")],
        start: nginx,
    },
    Peer { name: "adit", about: "gateway and agent, TLS 1.3 between them", needs: &[], start: adit },
];

/// Where a peer starts.
#[derive(Debug)]
pub(super) struct Place {
    /// For configuration and logs.
    pub(super) folder: PathBuf,
    /// What it must lead to.
    pub(super) upstream_port: u16,
    /// The binary under test.
    pub(super) adit: PathBuf,
}

/// A peer that answers.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) port: u16,
    pub(super) processes: Vec<Owned>,
    pub(super) version: String,
}

impl Started {
    fn when_ready(port: u16, mut processes: Vec<Owned>, version: String) -> Result<Self> {
        wait_until_ready(port, &mut processes)?;
        Ok(Self { port, processes, version })
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Owned::pid).collect()
    }
}

/// The upstream of everybody: files of 1 KiB and 64 KiB from an nginx of its own.
pub(super) fn upstream(folder: &Path) -> Result<Started> {
    let folder = folder.join("upstream");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, size) in [("1k", 1024), ("64k", 64 * 1024)] {
        fs::write(folder.join(name), "x".repeat(size)).context("cannot write the upstream's files")?;
    }
    let port = free_port()?;
    let server = format!(
        "sendfile on; open_file_cache max=10;\n  \
         server {{ listen 127.0.0.1:{port} backlog=4096; root {}; }}",
        folder.display()
    );
    Started::when_ready(port, vec![start_nginx(&folder, &server)?], nginx_version()?)
}

fn direct(place: &Place) -> Result<Started> {
    Started::when_ready(place.upstream_port, Vec::new(), String::new())
}

fn nginx(place: &Place) -> Result<Started> {
    let folder = place.folder.join("nginx");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let port = free_port()?;
    let server = format!(
        "upstream u {{ server 127.0.0.1:{}; keepalive 512; keepalive_requests 100000000; }}\n  \
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;\n    \
         proxy_set_header Connection \"\"; proxy_request_buffering off; proxy_max_temp_file_size 0; }} }}",
        place.upstream_port
    );
    Started::when_ready(port, vec![start_nginx(&folder, &server)?], nginx_version()?)
}

fn adit(place: &Place) -> Result<Started> {
    let folder = place.folder.join("adit");
    fs::create_dir_all(folder.join("tls")).with_context(|| format!("cannot create {}", folder.display()))?;
    let token = folder.join("token");
    fs::write(&token, random_token()?).context("cannot write the token")?;
    let (control, port) = (free_port()?.to_string(), free_port()?);
    let mut gateway = program(&place.adit);
    gateway.args(["http", "server", "--control-addr", "127.0.0.1", "--control-port", &control]);
    gateway.args(["--data-addr", "127.0.0.1", "--port", &port.to_string(), "--token-file"]).arg(&token);
    gateway.arg("--auto-tls-path").arg(folder.join("tls"));
    let mut agent = program(&place.adit);
    agent
        .args(["http", "client", "--url", &format!("wss://127.0.0.1:{control}"), "--token-file"])
        .arg(&token);
    agent.args(["--upstream", &format!("http://127.0.0.1:{}", place.upstream_port)]);
    // The agent keeps trying until the gateway listens, so neither start has to wait for the other.
    let processes = vec![
        Owned::start(&mut gateway, &folder.join("gateway.log"))?,
        Owned::start(&mut agent, &folder.join("agent.log"))?,
    ];
    let version = read(program(&place.adit).arg("--version"))?;
    Started::when_ready(port, processes, version.trim().to_owned())
}

fn start_nginx(folder: &Path, server: &str) -> Result<Owned> {
    // Started by root, workers would run as somebody who may not read our folder.
    let user =
        format!("{} {}", read(program("id").arg("-un"))?.trim(), read(program("id").arg("-gn"))?.trim());
    let dir = folder.display();
    let conf = format!(
        "daemon off; worker_processes 1; user {user}; pid {dir}/nginx.pid; error_log {dir}/error.log error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off; keepalive_requests 100000000; client_max_body_size 0;\n  \
         client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; \
         scgi_temp_path {dir}/s;\n  {server}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, conf).context("cannot write nginx.conf")?;
    let nginx = find("nginx").context("nginx is not installed")?;
    let mut command = program(nginx);
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
    Owned::start(&mut command, &folder.join("nginx.log"))
}

fn nginx_version() -> Result<String> {
    let output =
        program(find("nginx").context("nginx is not installed")?).arg("-v").output().context("nginx -v")?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(text.replace("nginx version: ", ""))
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_own_name() {
        for (at, peer) in PEERS.iter().enumerate() {
            assert!(PEERS[..at].iter().all(|other| other.name != peer.name), "{} is there twice", peer.name);
        }
    }

    #[test]
    fn tokens_differ() {
        assert_eq!(random_token().unwrap().len(), 64);
        assert_ne!(random_token().unwrap(), random_token().unwrap());
    }
}
