//! Agents behind a proxy: the way out is the proxy's, the session is ours, and a failure says whose it is.

use adit_testkit::agent::config::Transport;
use adit_testkit::proxy::{Manner, Proxy};
use adit_testkit::tunnel::proxy::ProxyError;
use adit_testkit::tunnel::transport::{DialError, Route};
use adit_testkit::{AgentPlan, Upstream, World, until, within};
use tokio::io::AsyncReadExt as _;

const LOGIN: Manner = Manner::AsksFor("me", "s3cret");

#[tokio::test]
async fn agents_reach_their_gateway_through_either_kind_of_proxy_by_every_transport() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().run().await;
    for (scheme, login, manner) in [
        ("http", "", Manner::Connects),
        ("http", "me:s3cret", LOGIN),
        ("socks5", "", Manner::Connects),
        ("socks5", "me:s3cret", LOGIN),
        ("socks5h", "not:needed", Manner::Connects),
    ] {
        for transport in [Transport::Auto, Transport::WebSocket] {
            let proxy = Proxy::start(manner).await;
            let plan = AgentPlan::new()
                .offer("a.example", &upstream)
                .transport(transport)
                .through(&proxy.url(scheme, login));
            let agent = world.join(plan).await;
            assert_eq!(world.get("a.example", "/").await.status(), 200);
            // Once for each lane.
            let (asked, control) = (proxy.asked(), world.control().to_string());
            assert!(!asked.is_empty() && asked.iter().all(|to| *to == control), "{asked:?}");
            drop(world.take_agent(agent));
            world.agents_become(0).await;
        }
    }
    let leaks: Vec<_> = world.log().into_iter().filter(|line| line.contains("s3cret")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    world.finish().await;
}

/// What a dial by way of this proxy comes to, in words, with every cause.
async fn said(proxy: &str, host: &str) -> (DialError, String) {
    let proxy = proxy.parse().unwrap();
    let route = Route { host, port: 8123, address: None, proxy: Some(&proxy) };
    let error = within("the dial", route.connect()).await.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    (error, text)
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_told_by_name_and_reason() {
    for (manner, scheme, words) in [
        (Manner::Refuses(403), "http", "it answered 403"),
        (Manner::Refuses(2), "socks5", "not allowed by its rules (SOCKS5 code 2)"),
        (Manner::Refuses(77), "socks5", "SOCKS5 code 77"),
        (LOGIN, "http", "it wants a user and password, and was given none"),
        (LOGIN, "socks5", "it wants a user and password, and was given none"),
        (Manner::Says(b"SSH-2.0-OpenSSH_9.2\r\n"), "http", "is not HTTP"),
        (Manner::Says(b"HTTP/1.1 what\r\n\r\n"), "http", "is not HTTP"),
        (Manner::Says(b"HTTP/1.1 200 OK\r\n"), "http", "it ended the connection"),
        (Manner::Says(b""), "http", "it ended the connection"),
        (Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "socks5", "is not SOCKS5"),
        (Manner::Says(b"\x05"), "socks5", "it ended the connection"),
    ] {
        let proxy = Proxy::start(manner).await;
        let url = proxy.url(scheme, "");
        let (error, text) = said(&url, "gateway.test").await;
        assert!(matches!(error, DialError::Proxy { .. }), "{manner:?}: {error:?}");
        assert!(text.contains(words) && text.contains(&url), "{manner:?}: {text}");
    }
    let proxy = Proxy::start(LOGIN).await;
    for scheme in ["http", "socks5"] {
        let (_, text) = said(&proxy.url(scheme, "me:wr0ng"), "gateway.test").await;
        assert!(text.contains("was given wrong ones") && !text.contains("wr0ng"), "{text}");
    }
    let gone = proxy.url("http", "");
    drop(proxy);
    until("the proxy is gone", || async {
        match said(&gone, "gateway.test").await {
            (DialError::ProxyUnreachable { .. }, _) => Ok(()),
            (_, other) => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_says_nothing_or_never_ends_its_head_holds_an_agent_for_seconds_only() {
    const ENDLESS: &[u8] = &[b'x'; 64 * 1024];
    let silent = Proxy::start(Manner::Hangs).await;
    let (http, socks) = (silent.url("http", ""), silent.url("socks5", ""));
    let both = tokio::join!(said(&http, "gateway.test"), said(&socks, "gateway.test"));
    for (error, text) in [both.0, both.1] {
        assert!(matches!(error, DialError::Proxy { source: ProxyError::Timeout, .. }), "{text}");
    }
    let proxy = Proxy::start(Manner::Says(ENDLESS)).await;
    let (_, text) = said(&proxy.url("http", ""), "gateway.test").await;
    assert!(text.contains("is not HTTP"), "{text}");
}

#[tokio::test]
async fn the_proxy_resolves_the_name_and_the_first_bytes_behind_its_consent_are_the_gateways() {
    let proxy = Proxy::start(Manner::SpeaksFor(b"first words")).await;
    for (scheme, host) in [("http", "gateway.test"), ("socks5", "gateway.test"), ("socks5", "192.0.2.1")] {
        let through = proxy.url(scheme, "").parse().unwrap();
        let route = Route { host, port: 8123, address: None, proxy: Some(&through) };
        let mut tcp = within("the dial", route.connect()).await.unwrap();
        let mut words = [0; 11];
        within("the gateway's words", tcp.read_exact(&mut words)).await.unwrap();
        assert_eq!(&words, b"first words");
        assert_eq!(proxy.asked().last().unwrap(), &format!("{host}:8123"));
    }
}

#[tokio::test]
async fn an_agent_behind_a_proxy_that_refuses_says_so_in_its_metrics_and_keeps_trying() {
    let world = World::new().run().await;
    for (manner, result) in [(LOGIN, "proxy_login"), (Manner::Refuses(503), "proxy_refused")] {
        let proxy = Proxy::start(manner).await;
        let plan = AgentPlan::new().offer("a.example", "http_status:204").through(&proxy.url("http", ""));
        let agent = world.start_agent(&plan).await;
        until("the failure is counted", || async {
            let samples = adit_testkit::world::metrics_of(&agent).await;
            let count = samples.sum("adit_agent_connects_total", &[("result", result)]);
            if count > 0.5 { Ok(()) } else { Err(samples.series_of("adit_agent_connects_total")) }
        })
        .await;
    }
    world.finish().await;
}
