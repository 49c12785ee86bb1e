//! nginx: one plain hop, which every ratio is to; and two hops with TLS between them, which is what an
//! encrypted way to a private upstream costs when it is made of a good proxy.

use std::path::Path;

use anyhow::Result;

use super::{Launch, Place, Plan, show};
use crate::process::{program, read};

pub(super) fn one(place: &Place<'_>) -> Result<Plan> {
    let hop = Hop { name: "nginx", workers: 2, port: place.public, to: place.upstream, tls: None };
    Ok(Plan::new(place, hop.launch(place)?, None, place.programs.version("nginx", &["-v"])?))
}

pub(super) fn two_with_tls(place: &Place<'_>) -> Result<Plan> {
    let (cert, key) = place.certificate()?;
    let tls = |end| Some(Tls { end, cert: &cert, key: &key });
    let near = Hop { name: "near", workers: 1, port: place.public, to: place.via, tls: tls(End::Starts) };
    let far = Hop { name: "far", workers: 1, port: place.control, to: place.upstream, tls: tls(End::Ends) };
    let version = place.programs.version("nginx", &["-v"])?;
    let mut plan = Plan::new(place, near.launch(place)?, Some(far.launch(place)?), version);
    // The near one dials, so neither waits for the other.
    plan.meets_at = None;
    Ok(plan)
}

struct Hop<'a> {
    name: &'a str,
    workers: u32,
    port: u16,
    to: u16,
    tls: Option<Tls<'a>>,
}

struct Tls<'a> {
    end: End,
    cert: &'a Path,
    key: &'a Path,
}

#[derive(PartialEq)]
enum End {
    /// Speaks TLS to the next hop.
    Starts,
    /// Is spoken to with TLS.
    Ends,
}

impl Hop<'_> {
    fn launch(&self, place: &Place<'_>) -> Result<Launch> {
        let (dir, name) = (show(&place.folder), self.name);
        // Started by root, workers would run as somebody who may not read our folder.
        let user =
            format!("{} {}", read(program("id").arg("-un"))?.trim(), read(program("id").arg("-gn"))?.trim());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("  {what}_temp_path {dir}/{name}-{what};\n"))
            .collect();
        let (listen, scheme, certificate) = match &self.tls {
            None => ("", "http", String::new()),
            Some(tls) if tls.end == End::Starts => ("", "https", "proxy_ssl_protocols TLSv1.3;".into()),
            Some(tls) => {
                let (cert, key) = (show(tls.cert), show(tls.key));
                let text =
                    format!("ssl_protocols TLSv1.3; ssl_certificate {cert}; ssl_certificate_key {key};");
                (" ssl", "http", text)
            }
        };
        let conf = format!(
            "daemon off; worker_processes {}; user {user}; pid {dir}/{name}.pid;\n\
             error_log {dir}/{name}-error.log error;\n\
             events {{ worker_connections 19000; }}\n\
             http {{\n  access_log off; client_max_body_size 0; keepalive_requests 100000000;\n{temporary}  \
             upstream next {{ server 127.0.0.1:{}; keepalive 256; keepalive_requests 100000000; }}\n  \
             server {{\n    listen 127.0.0.1:{}{listen} backlog=4096; {certificate}\n    \
             location / {{ proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection \"\";\n      \
             proxy_request_buffering off; proxy_max_temp_file_size 0; }}\n  }}\n}}\n",
            self.workers, self.to, self.port
        );
        let file = place.write(&format!("{name}.conf"), &conf)?;
        let log = place.folder.join(format!("{name}-error.log"));
        Ok(Launch::new(place.programs.get("nginx")?).with(["-e", &show(&log), "-c", &show(&file)]))
    }
}
