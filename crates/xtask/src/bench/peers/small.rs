//! Peers that need little said: no hop at all, bore, and ssh.

use std::fs;

use anyhow::{Context as _, Result};

use super::{Launch, Place, Plan, Target, is_root, show};
use crate::process::{program, read};

pub(super) fn direct(place: &Place<'_>) -> Result<Plan> {
    // Over a slow path the load itself takes it.
    let port = if place.via == place.control { place.upstream } else { place.via };
    let target = Target { port, host: "127.0.0.1".into() };
    let version = String::new();
    Ok(Plan { server: None, client: None, meets_at: None, target, agents: Vec::new(), version })
}

pub(super) fn bore(place: &Place<'_>) -> Result<Plan> {
    let bore = || -> Result<Launch> { Ok(Launch::new(place.programs.get("bore")?).env("RUST_LOG", "error")) };
    let local = ["--bind-addr", "127.0.0.1", "--bind-tunnels", "127.0.0.1"];
    let client = |port: u16| -> Result<Launch> {
        let upstream = place.upstream.to_string();
        let from = ["local", &upstream, "--local-host", "127.0.0.1", "--to", "127.0.0.1", "--port"];
        Ok(bore()?.with(from).with([port]))
    };
    let version = place.programs.version("bore", &["--version"])?;
    let mut plan =
        Plan::new(place, bore()?.with(["server"]).with(local), Some(client(place.public)?), version);
    // Its control port is always the same.
    plan.meets_at = Some(7835);
    for port in &place.agents {
        plan.agents.push((client(*port)?, Target { port: *port, host: "127.0.0.1".into() }));
    }
    Ok(plan)
}

pub(super) fn ssh(place: &Place<'_>) -> Result<Plan> {
    let (host_key, user_key) = (place.folder.join("host"), place.folder.join("user"));
    for key in [&host_key, &user_key] {
        let keygen = place.programs.get("ssh-keygen")?;
        read(program(keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key))?;
    }
    if is_root() {
        // Where sshd, started by root, keeps its unprivileged half; the service would make it.
        fs::create_dir_all("/run/sshd").context("cannot make /run/sshd")?;
    }
    let conf = format!(
        "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
         PidFile none\nLogLevel ERROR\nMaxStartups 5000\n",
        Place::local(place.control),
        show(&host_key),
        show(&user_key)
    );
    let conf = place.write("sshd.conf", &conf)?;
    let server = Launch::new(place.programs.get("sshd")?).with(["-D", "-e", "-f", &show(&conf)]);
    let ssh = show(&place.programs.get("ssh")?);
    let user = read(program("id").arg("-un"))?.trim().to_owned();
    let dial = |port: u16| {
        format!(
            "{ssh} -N -T -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o LogLevel=ERROR -o ExitOnForwardFailure=yes -o ServerAliveInterval=5 -i {} -p {} \
             -R {}:{} {user}@127.0.0.1",
            show(&user_key),
            place.via,
            Place::local(port),
            Place::local(place.upstream)
        )
    };
    // By itself ssh does not come back.
    let client = format!("while :; do {}; sleep 0.2; done", dial(place.public));
    let version = place.programs.version("ssh", &["-V"])?;
    let mut plan = Plan::new(place, server, Some(Launch::new("sh").with(["-c", &client])), version);
    for port in &place.agents {
        let agent = Launch::new("sh").with(["-c", &format!("exec {}", dial(*port))]);
        plan.agents.push((agent, Target { port: *port, host: "127.0.0.1".into() }));
    }
    Ok(plan)
}
