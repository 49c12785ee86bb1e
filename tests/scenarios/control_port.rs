//! The control port's HTTP face: what is shown to whom, in which form, and that nothing else is there.

use adit_testkit::certificate::credulous;
use adit_testkit::control::model::Limits;
use adit_testkit::samples::Samples;
use adit_testkit::world::local_token;
use adit_testkit::{AgentPlan, Signal, Upstream, Wire, World, until, within};

#[tokio::test]
async fn who_has_not_shown_a_token_asks_once_for_each_connection() {
    let world = World::new().run().await;
    let twice = async |path: &str, fields: &str| {
        let mut wire = Wire::tls(world.control(), &credulous(&[b"http/1.1"])).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n").repeat(2)).await;
        wire.reply().await
    };
    for (path, status) in [("/x", 404), ("/healthz", 200), ("/status", 401), ("/connect", 426)] {
        let reply = twice(path, "").await;
        assert_eq!(reply.status(), status);
        assert!(reply.field("connection").is_some() && format!("{reply:?}").contains("close"), "{reply:?}");
    }
    let reply = twice("/status", &World::bearer()).await;
    assert_eq!((reply.status(), reply.field("connection")), (200, None));
    world.finish().await;
}

#[tokio::test]
async fn status_has_exactly_the_documented_keys() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().offer("a.example", &upstream).offer("*", "http_status:404").run().await;
    world.join(AgentPlan::new().offer("b.example", &upstream)).await;
    let reply = world.ask_control("GET", "/status", &World::bearer()).await;
    assert_eq!((reply.status(), reply.field("content-type")), (200, Some("application/json")));
    let status: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&status), ["clients", "info"]);
    assert_eq!(keys(&status["info"]), ["hostname", "mode", "sha", "startTime", "version"]);
    assert_eq!((&status["info"]["mode"], &status["info"]["sha"]), (&"http".into(), &"test".into()));
    let clients = status["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 2);
    for (number, client) in clients.iter().enumerate() {
        assert_eq!(
            keys(client),
            ["clientID", "identity", "identityKind", "remoteAddr", "since", "transport", "upstreams"]
        );
        assert_eq!(client["clientID"], world.agent(number).instance().to_string());
        assert!(client["remoteAddr"].as_str().unwrap().starts_with("127.0.0.1:"), "{client}");
        assert!(client["since"].as_str().unwrap().ends_with('Z'), "{client}");
    }
    let shown = [format!("a.example={upstream}"), "*=http_status:404".to_owned()];
    assert_eq!(clients[0]["upstreams"], serde_json::json!(shown));
    world.finish().await;
}

#[tokio::test]
async fn status_and_metrics_need_the_token() {
    let world = World::new().run().await;
    for path in ["/status", "/metrics"] {
        for fields in [
            "",
            "authorization: Bearer wrong\r\n",
            "authorization: Basic eDp5\r\n",
            "authorization: Bearer\r\n",
        ] {
            let reply = world.ask_control("GET", path, fields).await;
            assert_eq!((reply.status(), reply.reason()), (401, Some("unauthorized")), "{path} {fields:?}");
            assert!(reply.field("www-authenticate").is_some_and(|it| it.starts_with("Bearer")), "{reply:?}");
        }
        for fields in [World::bearer(), World::bearer().replace("Bearer", "bearer")] {
            let reply = world.ask_control("GET", path, &fields).await;
            assert_eq!((reply.status(), reply.field("cache-control")), (200, Some("no-store")), "{path}");
        }
        for spelling in [
            format!("/{path}"),
            format!("{path}/"),
            path.to_uppercase(),
            format!("/.{path}"),
            format!("{path}%20"),
        ] {
            let reply = world.ask_control("GET", &spelling, "").await;
            assert!(matches!(reply.status(), 401 | 404), "{spelling}: {reply:?}");
        }
    }
    world.sum_becomes("adit_auth_failures_total", &[("reason", "unauthorized")], 6).await;
    world.finish().await;
}

#[tokio::test]
async fn metrics_alone_are_for_whoever_has_the_right_to_them() {
    let nothing = || Limits { hosts: Some(Vec::new()), ..Limits::default() };
    let mut shop = local_token("shop", "the-secret-of-an-agent-with-limits");
    shop.token.limits = nothing();
    let mut scraper = local_token("prometheus", "the-secret-of-a-scraper");
    (scraper.token.limits, scraper.token.metrics) = (nothing(), true);
    let world = World::new().gateway(|config| config.tokens.extend([shop, scraper])).run().await;
    let ask = async |path: &str, secret: &str| {
        world.ask_control("GET", path, &format!("authorization: Bearer {secret}\r\n")).await
    };
    for (path, secret, status) in [
        ("/metrics", "the-secret-of-a-scraper", 200),
        ("/status", "the-secret-of-a-scraper", 403),
        ("/metrics", "the-secret-of-an-agent-with-limits", 403),
        ("/status", "the-secret-of-an-agent-with-limits", 403),
        ("/v1/services", "the-secret-of-a-scraper", 403),
    ] {
        assert_eq!(ask(path, secret).await.status(), status, "{path} {secret}");
    }
    let refused = ask("/metrics", "the-secret-of-an-agent-with-limits").await;
    assert_eq!(
        refused.text(),
        "token shop may not read /metrics: it has no right to; create a token that has: adit token create prometheus \
         --metrics -o prometheus.token\n"
    );
    world.finish().await;
}

#[tokio::test]
async fn metrics_come_in_the_format_the_scraper_asks_for() {
    let world = World::new().run().await;
    let ask = async |accept: &str| {
        world.ask_control("GET", "/metrics", &format!("{}{accept}", World::bearer())).await
    };
    for accept in ["", "accept: text/plain\r\n", "accept: */*\r\n"] {
        let reply = ask(accept).await;
        assert_eq!(
            reply.field("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8"),
            "{accept:?}"
        );
        assert!(!reply.text().contains("# EOF"));
        assert!(Samples::parse(&reply.text()).kind("adit_build_info").is_some());
    }
    let prometheus =
        "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let reply = ask(prometheus).await;
    assert_eq!(
        reply.field("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(reply.text().ends_with("# EOF\n"));
    world.finish().await;
}

#[tokio::test]
async fn health_readiness_and_the_authority_are_open_and_nothing_else_is_there() {
    let world = World::new().run().await;
    for (path, text) in [("/healthz", "ok\n"), ("/ready", "ready\n")] {
        let reply = world.ask_control("GET", path, "").await;
        assert_eq!((reply.status(), reply.text().split_inclusive('\n').next()), (200, Some(text)));
        let head = world.ask_control("HEAD", path, "").await;
        assert_eq!((head.status(), head.text().as_str()), (200, ""));
    }
    let authority = world.ask_control("GET", "/.well-known/ca.crt", "").await;
    assert!(
        authority.status() == 200 && authority.text().starts_with("-----BEGIN CERTIFICATE-----"),
        "{authority:?}"
    );
    for path in ["/", "/x", "/statu", "/metrics/x", "/.well-known/", "/../status"] {
        assert_eq!(world.ask_control("GET", path, &World::bearer()).await.status(), 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"] {
        for path in ["/status", "/metrics", "/healthz", "/x"] {
            let reply = world.ask_control(method, path, &World::bearer()).await;
            assert_eq!((reply.status(), reply.field("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    assert_eq!(world.ask_control("GET", "/connect", "").await.status(), 426);
    world.finish().await;
}

#[tokio::test]
async fn a_gateway_that_drains_says_so() {
    let go = Signal::default();
    let upstream = Upstream::scripted({
        let go = go.clone();
        move |mut wire| {
            let go = go.clone();
            async move {
                wire.head().await;
                go.given(1).await;
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    world.sum_becomes("adit_flows", &[], 1).await;
    let drain = world.take_gateway().drain();
    let meanwhile = async {
        until("it is not ready", || async {
            let reply = world.ask_control("GET", "/ready", "").await;
            if reply.status() == 503 { Ok(()) } else { Err(reply) }
        })
        .await;
        assert_eq!(world.ask_control("GET", "/healthz", "").await.status(), 200, "it is alive all the same");
        assert_eq!(world.ask_control("GET", "/metrics", &World::bearer()).await.status(), 200);
        go.give();
        assert_eq!(client.reply().await.status(), 200);
    };
    let (cut, ()) = tokio::join!(within("the drain", drain), meanwhile);
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn an_agents_own_port_tells_whether_it_is_connected() {
    let mut world = World::new().offer("a.example", "http_status:204").run().await;
    let address = world.agent(0).listen_addr().unwrap();
    let ask = async |path: &str| Wire::tcp(address).await.get("localhost", path).await;
    assert_eq!((ask("/healthz").await.status(), ask("/ready").await.status()), (200, 200));
    assert_eq!(ask("/x").await.status(), 404);
    drop(world.take_gateway());
    until("it is not ready", || async {
        let reply = ask("/ready").await;
        if reply.status() == 503 { Ok(()) } else { Err(reply) }
    })
    .await;
    assert_eq!(ask("/healthz").await.status(), 200);
}
