//! Who is compared: one entry of [`PEERS`] for each, and one function that writes its configuration and says
//! how it is started.

mod adit;
mod nginx;
mod proxies;
mod rathole;
mod small;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::owned::{Launch, Target};
use crate::process::{find, program, read};

/// Something that stands between the load and the upstream.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// What is compared, for the report.
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    /// The programs it needs.
    pub(super) needs: &'static [&'static str],
    pub(super) plan: fn(&Place<'_>) -> Result<Plan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No hop at all.
    Direct,
    /// Every connection is made towards the upstream.
    Proxy,
    /// As before, in two processes with TLS between them.
    EncryptedPair,
    /// One half dials out.
    Tunnel,
    /// As before, and encrypted.
    EncryptedTunnel,
    /// What this is all about.
    Adit,
}

/// To add a peer: one entry here, and a function.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: "direct",
        about: "no hop: the upstream itself",
        kind: Kind::Direct,
        needs: &[],
        plan: small::direct,
    },
    Peer {
        name: "nginx",
        about: "one plain HTTP hop, 2 workers",
        kind: Kind::Proxy,
        needs: &["nginx"],
        plan: nginx::one,
    },
    Peer {
        name: "haproxy",
        about: "one plain HTTP hop, 2 threads",
        kind: Kind::Proxy,
        needs: &["haproxy"],
        plan: proxies::haproxy,
    },
    Peer {
        name: "caddy",
        about: "one plain HTTP hop",
        kind: Kind::Proxy,
        needs: &["caddy"],
        plan: proxies::caddy,
    },
    Peer {
        name: "nginx2-tls",
        about: "two HTTP hops with kept TLS 1.3 connections between them",
        kind: Kind::EncryptedPair,
        needs: &["nginx", "openssl"],
        plan: nginx::two_with_tls,
    },
    Peer {
        name: "rathole",
        about: "a plain TCP connection for each stream",
        kind: Kind::Tunnel,
        needs: &["rathole"],
        plan: rathole::plain,
    },
    Peer {
        name: "rathole-tls",
        about: "a TLS connection for each stream",
        kind: Kind::EncryptedTunnel,
        needs: &["rathole", "openssl"],
        plan: rathole::tls,
    },
    Peer {
        name: "rathole-noise",
        about: "a Noise connection for each stream",
        kind: Kind::EncryptedTunnel,
        needs: &["rathole"],
        plan: rathole::noise,
    },
    Peer {
        name: "bore",
        about: "a plain TCP connection for each stream",
        kind: Kind::Tunnel,
        needs: &["bore"],
        plan: small::bore,
    },
    Peer {
        name: "ssh",
        about: "ssh -R, started again in a loop; streams share one connection",
        kind: Kind::EncryptedTunnel,
        needs: &["ssh", "sshd", "ssh-keygen"],
        plan: small::ssh,
    },
    Peer {
        name: "adit",
        about: "HTTP: gateway and agent, streams share TLS 1.3 connections",
        kind: Kind::Adit,
        needs: &[],
        plan: adit::http,
    },
    Peer {
        name: "adit-tcp",
        about: "TCP: gateway and agent, streams share TLS 1.3 connections",
        kind: Kind::Adit,
        needs: &[],
        plan: adit::tcp,
    },
];

/// Where a peer starts.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// For configuration and logs; of its own for each start.
    pub(super) folder: PathBuf,
    /// What it must lead to.
    pub(super) upstream: u16,
    /// Where it is to listen for the load.
    pub(super) public: u16,
    /// Where its halves meet.
    pub(super) control: u16,
    /// Where the half that dials finds the other one: `control`, or a slow path to it.
    pub(super) via: u16,
    /// Public ports of agents, where many are compared.
    pub(super) agents: Vec<u16>,
    pub(super) programs: &'a Programs,
}

/// How a peer is started.
#[derive(Debug)]
pub(super) struct Plan {
    /// The half people reach; none without a hop.
    pub(super) server: Option<Launch>,
    /// The half beside the upstream; none where one process does it all.
    pub(super) client: Option<Launch>,
    /// Where the server listens for the client, if that can be told.
    pub(super) meets_at: Option<u16>,
    pub(super) target: Target,
    /// In place of the client, for each of the place's agents.
    pub(super) agents: Vec<(Launch, Target)>,
    pub(super) version: String,
}

impl Plan {
    /// A single process, or two without agents to multiply.
    fn new(place: &Place<'_>, server: Launch, client: Option<Launch>, version: String) -> Self {
        let target = Target { port: place.public, host: "127.0.0.1".into() };
        let meets_at = client.is_some().then_some(place.control);
        Self { server: Some(server), client, meets_at, target, agents: Vec::new(), version }
    }
}

/// Where the peers' programs are.
#[derive(Debug)]
pub(super) struct Programs {
    /// Looked into before the PATH.
    pub(super) folder: Option<PathBuf>,
    /// The binary under test.
    pub(super) adit: PathBuf,
}

impl Programs {
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let own = self.folder.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
        own.or_else(|| find(name))
    }

    fn get(&self, name: &str) -> Result<PathBuf> {
        self.find(name).with_context(|| format!("{name} is not installed"))
    }

    /// The first line that a program says of its version.
    fn version(&self, name: &str, args: &[&str]) -> Result<String> {
        let output =
            program(self.get(name)?).args(args).output().with_context(|| format!("{name} {args:?}"))?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(text.trim().lines().next().unwrap_or_default().trim().replace("nginx version: ", ""))
    }
}

impl Place<'_> {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    fn local(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    /// A certificate for localhost that signs itself, and its key: `cert.pem` and `key.pem`.
    fn certificate(&self) -> Result<(PathBuf, PathBuf)> {
        let (cert, key) = (self.folder.join("cert.pem"), self.folder.join("key.pem"));
        let mut openssl = program(self.programs.get("openssl")?);
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:TRUE", "-keyout"]).arg(&key);
        openssl.arg("-out").arg(&cert);
        read(&mut openssl)?;
        Ok((cert, key))
    }
}

/// Whether the command line's user is root, as some programs then behave differently.
fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn show(path: &Path) -> String {
    path.display().to_string()
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
    fn the_folder_that_was_named_comes_before_the_path() {
        let folder = std::env::temp_dir().join(format!("xtask-programs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("sh"), "").unwrap();
        let named = Programs { folder: Some(folder.clone()), adit: PathBuf::new() };
        assert_eq!(named.find("sh"), Some(folder.join("sh")));
        fs::remove_dir_all(&folder).unwrap();
        assert_ne!(named.find("sh"), Some(folder.join("sh")));
        assert!(named.get("no-such-program").is_err());
    }
}
