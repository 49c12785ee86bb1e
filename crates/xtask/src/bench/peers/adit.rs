//! Adit itself, for HTTP and for TCP.

use std::fs::{self, File};
use std::io::Read as _;

use anyhow::{Context as _, Result};

use super::{Launch, Place, Plan, Target, show};
use crate::process::{program, read};

pub(super) fn http(place: &Place<'_>) -> Result<Plan> {
    let halves = Halves::new(place, "http")?;
    let server = halves.server.clone().with(["--port", &place.public.to_string()]);
    let upstream = |host: &str| format!("{host}=http://{}", Place::local(place.upstream));
    let client = halves.client.clone().with(["--upstream", &upstream("bench.test")]);
    let mut plan = Plan::new(place, server, Some(client), halves.version.clone());
    plan.target.host = "bench.test".into();
    for at in 0..place.agents.len() {
        let host = format!("a{at}.test");
        let agent = halves.client.clone().with(["--upstream", &upstream(&host)]);
        plan.agents.push((agent, Target { port: place.public, host }));
    }
    Ok(plan)
}

pub(super) fn tcp(place: &Place<'_>) -> Result<Plan> {
    let halves = Halves::new(place, "tcp")?;
    let client = |port: u16| {
        let upstream = format!("{port}={}", Place::local(place.upstream));
        halves.client.clone().with(["--upstream", &upstream])
    };
    let mut plan =
        Plan::new(place, halves.server.clone(), Some(client(place.public)), halves.version.clone());
    for port in &place.agents {
        let target = Target { port: *port, host: "127.0.0.1".into() };
        plan.agents.push((client(*port), target));
    }
    Ok(plan)
}

/// What both kinds have in common.
struct Halves {
    server: Launch,
    client: Launch,
    version: String,
}

impl Halves {
    fn new(place: &Place<'_>, kind: &str) -> Result<Self> {
        let adit = &place.programs.adit;
        let tls = place.folder.join("tls");
        fs::create_dir_all(&tls).with_context(|| format!("cannot create {}", tls.display()))?;
        let token = show(&place.write("token", &random_token()?)?);
        let control = place.control.to_string();
        let server = Launch::new(adit)
            .with([kind, "server", "--control-addr", "127.0.0.1", "--control-port", &control])
            .with(["--data-addr", "127.0.0.1", "--token-file", &token, "--auto-tls-path", &show(&tls)]);
        let url = format!("wss://{}", Place::local(place.via));
        let client = Launch::new(adit).with([kind, "client", "--url", &url, "--token-file", &token]);
        let version = read(program(adit).arg("--version"))?.trim().to_owned();
        Ok(Self { server, client, version })
    }
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
    fn tokens_differ() {
        assert_eq!(random_token().unwrap().len(), 64);
        assert_ne!(random_token().unwrap(), random_token().unwrap());
    }
}
