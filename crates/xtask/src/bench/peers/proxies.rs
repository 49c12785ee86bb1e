//! Other proxies of one plain hop, for where a good one of another build stands.

use anyhow::Result;

use super::{Launch, Place, Plan, show};

pub(super) fn haproxy(place: &Place<'_>) -> Result<Plan> {
    let conf = format!(
        "global\n  nbthread 2\n  maxconn 9000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n  backlog 4096\n\
         listen hop\n  bind {}\n  http-reuse always\n  server upstream {}\n",
        Place::local(place.public),
        Place::local(place.upstream)
    );
    let file = place.write("haproxy.cfg", &conf)?;
    let launch = Launch::new(place.programs.get("haproxy")?).with(["-q", "-f", &show(&file)]);
    Ok(Plan::new(place, launch, None, place.programs.version("haproxy", &["-v"])?))
}

pub(super) fn caddy(place: &Place<'_>) -> Result<Plan> {
    let conf = format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://{} {{\n\tbind 127.0.0.1\n\treverse_proxy {}\n}}\n",
        Place::local(place.public),
        Place::local(place.upstream)
    );
    let file = place.write("Caddyfile", &conf)?;
    let launch = Launch::new(place.programs.get("caddy")?)
        .with(["run", "--adapter", "caddyfile", "--config", &show(&file)])
        .env("XDG_DATA_HOME", place.folder.display())
        .env("XDG_CONFIG_HOME", place.folder.display());
    Ok(Plan::new(place, launch, None, place.programs.version("caddy", &["version"])?))
}
