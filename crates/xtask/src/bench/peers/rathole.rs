//! rathole: a connection of its own for each stream, plain, in TLS or in Noise.

use anyhow::{Context as _, Result};

use super::{Launch, Place, Plan, Target, show};
use crate::process::{program, read};

/// What the two halves say about how they are connected, and the name of the server for the client.
struct Transport {
    server: String,
    client: String,
    host: &'static str,
}

pub(super) fn plain(place: &Place<'_>) -> Result<Plan> {
    let same = || "type = \"tcp\"\n".to_owned();
    plan(place, &Transport { server: same(), client: same(), host: "127.0.0.1" })
}

pub(super) fn tls(place: &Place<'_>) -> Result<Plan> {
    let (cert, key) = place.certificate()?;
    let identity = place.folder.join("identity.pfx");
    let mut openssl = program(place.programs.get("openssl")?);
    openssl.args(["pkcs12", "-export", "-passout", "pass:bench", "-inkey"]).arg(&key);
    openssl.arg("-in").arg(&cert).arg("-out").arg(&identity);
    read(&mut openssl)?;
    let server = format!(
        "type = \"tls\"\n[server.transport.tls]\npkcs12 = \"{}\"\npkcs12_password = \"bench\"\n",
        show(&identity)
    );
    let client = format!(
        "type = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"localhost\"\n",
        show(&cert)
    );
    plan(place, &Transport { server, client, host: "localhost" })
}

pub(super) fn noise(place: &Place<'_>) -> Result<Plan> {
    let keys = read(program(place.programs.get("rathole")?).arg("--genkey"))?;
    let below = |title: &str| {
        let mut lines = keys.lines().skip_while(|line| !line.contains(title)).skip(1);
        lines.next().map(str::trim).with_context(|| format!("rathole --genkey gives no {title}"))
    };
    let (private, public) = (below("Private")?, below("Public")?);
    let server = format!("type = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n");
    let client = format!("type = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n");
    plan(place, &Transport { server, client, host: "127.0.0.1" })
}

fn plan(place: &Place<'_>, transport: &Transport) -> Result<Plan> {
    let mut server = format!(
        "[server]\nbind_addr = \"{}\"\ndefault_token = \"bench\"\n[server.transport]\n{}\n\
         [server.services.web]\nbind_addr = \"{}\"\n",
        Place::local(place.control),
        transport.server,
        Place::local(place.public)
    );
    for (at, port) in place.agents.iter().enumerate() {
        server += &format!("[server.services.a{at}]\nbind_addr = \"{}\"\n", Place::local(*port));
    }
    let rathole =
        || -> Result<Launch> { Ok(Launch::new(place.programs.get("rathole")?).env("RUST_LOG", "error")) };
    let client = |service: &str| -> Result<Launch> {
        let conf = format!(
            "[client]\nremote_addr = \"{}:{}\"\ndefault_token = \"bench\"\nretry_interval = 1\n\
             [client.transport]\n{}\n[client.services.{service}]\nlocal_addr = \"{}\"\n",
            transport.host,
            place.via,
            transport.client,
            Place::local(place.upstream)
        );
        let file = place.write(&format!("client-{service}.toml"), &conf)?;
        Ok(rathole()?.with(["--client", &show(&file)]))
    };
    let file = place.write("server.toml", &server)?;
    let long = read(program(place.programs.get("rathole")?).arg("--version"))?;
    let version = long.lines().find_map(|line| line.split_once("Build Version:")).map(|(_, version)| version);
    let version = format!("rathole {}", version.unwrap_or("of unknown version").trim());
    let server = rathole()?.with(["--server", &show(&file)]);
    let mut plan = Plan::new(place, server, Some(client("web")?), version);
    for (at, port) in place.agents.iter().enumerate() {
        let target = Target { port: *port, host: "127.0.0.1".into() };
        plan.agents.push((client(&format!("a{at}"))?, target));
    }
    Ok(plan)
}
