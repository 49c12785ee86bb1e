//! Metrics: every documented family is there and moves, figures move while the bytes do, and nobody outside can make
//! series.

use std::collections::BTreeSet;

use adit_testkit::h2::Fed;
use adit_testkit::ports::free;
use adit_testkit::samples::Samples;
use adit_testkit::tcp::Tcp;
use adit_testkit::telemetry::families::{COMMON, Described};
use adit_testkit::world::TOKEN;
use adit_testkit::{Answer, Puppet, Signal, Upstream, Wire, World, until};

/// That a family is there with its documented type and labels, and at least one sample above zero.
fn check_family(family: &Described, samples: &Samples) {
    let Described { name, kind, labels, help: _ } = family;
    assert_eq!(samples.kind(name), Some(*kind), "{name}");
    let mut documented: Vec<String> =
        labels.split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
    documented.sort();
    assert_eq!(samples.label_names(name), BTreeSet::from([documented]), "{name}");
    let suffix = if *kind == "histogram" { "_count" } else { "" };
    let sum = samples.sum(&format!("{name}{suffix}"), &[]);
    assert!(sum > 0.0, "{name} has not moved: {:?}", samples.series_of(name));
}

/// An upstream that answers and then waits to be told before it ends its response.
async fn waiting(go: &Signal) -> Upstream {
    let go = go.clone();
    Upstream::scripted(move |mut wire| {
        let go = go.clone();
        async move {
            while let Some(head) = wire.head().await {
                wire.request_body(&head).await;
                wire.send("HTTP/1.1 200 X\r\ncontent-length: 200000\r\n\r\n").await;
                wire.send(vec![b'x'; 100_000]).await;
                go.given(1).await;
                wire.send(vec![b'x'; 100_000]).await;
            }
        }
    })
    .await
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "every family has to be moved once")]
async fn every_documented_family_exists_with_its_labels_and_moves() {
    let go = Signal::default();
    let upstream = waiting(&go).await;
    let (echo, port) = (Tcp::echo().await, free());
    let plan = World::new().gateway(|config| config.tokens[0].token.admin = true);
    let mut world = plan.offer("a.example", &upstream).offer(&format!("tcp:{port}"), &echo).run().await;
    assert_eq!(super::admin::create(&world, "service", "web").await, 201);
    let mut open = Wire::tcp(([127, 0, 0, 1], port).into()).await;
    open.send("hello").await;
    assert_eq!(open.take(5).await, b"hello");
    assert_eq!(world.get("nobody.example", "/").await.status(), 404);
    assert_eq!(world.ask_control("GET", "/status", "authorization: Bearer wrong\r\n").await.status(), 401);
    let old = Puppet::greet(world.control(), TOKEN, (1, 1), &["p.example"]).await.unwrap();
    let new = Puppet::greet(world.control(), TOKEN, (1, 2), &["p.example"]).await.unwrap();
    old.session.closed().await;
    let mut client = world.wire().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    assert_eq!(client.take(100_000).await.len(), 100_000);

    // The flow is open: gauges stand above zero now, and what only its end counts was counted by the 404.
    let families = adit_testkit::gateway::observe::FAMILIES;
    assert!(families.len() > 10);
    let samples = until("the old session's end and the agent's canary are counted", || async {
        let samples = world.metrics().await;
        let ended = samples.sum("adit_sessions_ended_total", &[("reason", "replaced")]);
        let canaries = samples.sum("adit_canary_round_trip_seconds_count", &[]);
        if ended > 0.0 && canaries > 0.0 { Ok(samples) } else { Err((ended, canaries)) }
    })
    .await;
    for family in families {
        // They are there as soon as the audit log is full, a canary fails, an agent dials, an offer is not taken or something is revoked; other
        // tests see to that.
        let rare = [
            "adit_audit_dropped_total",
            "adit_canary_failures_total",
            "adit_dials_total",
            "adit_grants",
            "adit_offers_denied_total",
            "adit_revocations_total",
        ];
        if rare.contains(&family.name) {
            assert_eq!(samples.kind(family.name), Some(family.kind), "{}", family.name);
        } else {
            check_family(family, &samples);
        }
    }
    for family in COMMON {
        assert_eq!(samples.kind(family.name), Some(family.kind), "{}", family.name);
    }
    let bytes = |direction| ("direction", direction);
    assert!(
        (samples.sum("adit_service_bytes_total", &[bytes("in"), ("service", "a.example")]) - 4.0).abs() < 0.1
    );
    for (name, labels) in [
        ("http_controlplane_requests_total", [("code", "401"), ("path", "/status")]),
        ("http_controlplane_requests_total", [("code", "101"), ("path", "/connect")]),
        ("http_dataplane_requests_total", [("code", "404"), ("host", "other")]),
        ("http_dataplane_request_duration_seconds_count", [("method", "GET"), ("host", "other")]),
    ] {
        assert!(samples.sum(name, &labels) > 0.0, "{name}{labels:?}: {:?}", samples.series_of(name));
    }
    assert!(samples.sum("adit_refusals_total", &[("reason", "no_route")]) > 0.0);
    assert!(samples.sum("adit_auth_failures_total", &[("reason", "unauthorized")]) > 0.0);

    // The agent's: a stream is open now; a session has ended once the gateway has gone.
    let during = world.agent_metrics(0).await;
    assert!((during.sum("adit_agent_streams", &[("service", "a.example")]) - 1.0).abs() < 0.1);
    go.give();
    drop((client, open, new));
    world.sum_becomes("adit_flows", &[], 0).await;
    world.restart_gateway().await;
    let families = adit_testkit::agent::observe::FAMILIES;
    assert!(families.len() > 5);
    let after = until("the agent is connected again and has measured", || async {
        let samples = world.agent_metrics(0).await;
        let up = samples.sum("adit_agent_session_up", &[]) > 0.0;
        let again = samples.sum("adit_agent_connects_total", &[("result", "ok")]) > 1.5;
        let measured = samples.sum("adit_agent_round_trip_seconds", &[]) > 0.0
            && samples.sum("adit_agent_last_canary_timestamp_seconds", &[]) > 0.0;
        if up && again && measured { Ok(samples) } else { Err((up, again, measured)) }
    })
    .await;
    // What never moves while all is well, or without a certificate, is there, at 0.
    let still = [
        "adit_agent_loop_restarts_total",
        "adit_agent_clock_jumps_total",
        "adit_agent_credential_expiry_timestamp_seconds",
        "adit_agent_credential_renewals_total",
    ];
    for family in families.iter().filter(|family| family.name != "adit_agent_streams") {
        if still.contains(&family.name) {
            assert_eq!(after.kind(family.name), Some(family.kind), "{}", family.name);
        } else {
            check_family(family, &after);
        }
    }
    check_family(families.iter().find(|family| family.name == "adit_agent_streams").unwrap(), &during);
    let streams_ended = after.sum("adit_agent_streams_ended_total", &[("service", "a.example")]);
    assert!(streams_ended > 0.5, "{:?}", after.series_of("adit_agent_streams_ended_total"));
    world.finish().await;
}

#[tokio::test]
async fn byte_counters_move_while_a_download_is_under_way() {
    let go = Signal::default();
    let upstream = waiting(&go).await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    world.sum_becomes("adit_service_bytes_total", &[("direction", "out")], 100_000).await;
    until("the agent counts them too", || async {
        let bytes = world.agent_metrics(0).await.sum("adit_agent_bytes_total", &[("direction", "out")]);
        if bytes >= 100_000.0 { Ok(()) } else { Err(bytes) }
    })
    .await;
    let samples = world.metrics().await;
    assert!((samples.sum("adit_flows", &[]) - 1.0).abs() < 0.1, "the response has not ended");
    go.give();
    assert_eq!(client.reply().await.content.bytes.len(), 200_000);
    world.sum_becomes("adit_service_bytes_total", &[("direction", "out")], 200_000).await;
    world.sum_becomes("adit_flows", &[], 0).await;
    world.finish().await;
}

/// One of many requests that a scanner might send; `kind` says what is random about it.
fn odd_request(number: u32) -> String {
    let method = match number % 7 {
        0 => format!("M{number}"),
        1 => "GET".to_owned(),
        2 => "PROPFIND".to_owned(),
        3 => "DELETE".to_owned(),
        4 => "PATCH".to_owned(),
        5 => format!("get{number}"),
        _ => "OPTIONS".to_owned(),
    };
    let host = if number.is_multiple_of(2) { "a.example".to_owned() } else { format!("h{number}.example") };
    let agent = format!("x-{number}: {number}\r\nuser-agent: u{number}");
    format!("{method} /p{number}?q={number} HTTP/1.1\r\nhost: {host}\r\n{agent}\r\n\r\n")
}

async fn ask_all(client: &mut Wire, numbers: std::ops::Range<u32>) {
    for batch in numbers.collect::<Vec<_>>().chunks(50) {
        let requests: String = batch.iter().map(|number| odd_request(*number)).collect();
        client.send(requests).await;
        for number in batch {
            let status = client.reply().await.status();
            assert_eq!(status, if number.is_multiple_of(2) { 200 } else { 404 });
        }
    }
}

#[tokio::test]
async fn a_flood_of_random_hosts_paths_and_methods_makes_no_series() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let bad = "GET / HTTP/1.1\r\nhost: a b\r\n\r\n";
    let ask_oddly = async |number: u32| {
        let mut client = world.wire().await;
        client.send(bad).await;
        assert_eq!(client.reply().await.status(), 400);
        let path = format!("/p{number}");
        assert_eq!(world.ask_control("GET", &path, "").await.status(), 404);
        assert_eq!(world.ask_control(&format!("M{number}"), &path, "").await.status(), 405);
    };
    let mut client = world.wire().await;
    ask_all(&mut client, 0..70).await;
    ask_oddly(0).await;
    world.sum_becomes("adit_flows", &[], 0).await;
    let before = world.metrics().await.series();
    ask_all(&mut client, 100..5_100).await;
    for number in 1..20 {
        ask_oddly(number).await;
    }
    world.sum_becomes("adit_flows", &[], 0).await;
    let after = world.metrics().await;
    let new: Vec<_> = after.series().difference(&before).cloned().collect();
    assert!(new.is_empty(), "{new:#?}");
    let counted = after.sum("http_dataplane_requests_total", &[]);
    assert!((counted - 5_090.0).abs() < 0.5, "every request counts all the same: {counted}");
    world.finish().await;
}

#[tokio::test]
async fn every_status_and_method_together_make_few_series_and_what_came_first_stays_exact() {
    let upstream = Upstream::answering(|request| {
        let status: u16 = request.head.target()[1..].parse().unwrap();
        if matches!(status, 204 | 304) {
            return Answer::raw(format!("HTTP/1.1 {status} X\r\n\r\n"));
        }
        Answer::new(status, "", "x")
    })
    .await;
    let world = World::new().offer("a.example", &upstream).run().await;
    let before = world.metrics().await.series();
    let mut client = world.wire().await;
    let ordinary = [("GET", 200), ("POST", 200), ("GET", 401), ("GET", 500), ("GET", 404)];
    let odd: Vec<_> = (0..10).map(|number| format!("X{number}")).collect();
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"];
    let methods = methods.into_iter().chain(odd.iter().map(String::as_str));
    let sweep = methods.flat_map(|method| (200..1000).map(move |status| (method, status)));
    let all: Vec<_> = ordinary.into_iter().chain(sweep).collect();
    for batch in all.chunks(50) {
        let requests = batch.iter().map(|(method, status)| {
            let nobody = format!("{method} /{status} HTTP/1.1\r\nhost: h{status}.example\r\n\r\n");
            format!("{method} /{status} HTTP/1.1\r\nhost: a.example\r\n\r\n") + &nobody
        });
        client.send(requests.collect::<String>()).await;
        for (_, status) in batch {
            assert_eq!(client.reply().await.status(), *status);
            assert_eq!(client.reply().await.status(), 404);
        }
    }
    let count = u32::try_from(all.len()).unwrap();
    let ours = ("host", "a.example");
    world.sum_becomes("http_dataplane_requests_total", &[ours], count).await;
    world.sum_becomes("http_dataplane_request_duration_seconds_count", &[ours], count).await;
    let after = world.metrics().await;
    let new: Vec<_> = after.series().difference(&before).cloned().collect();
    assert!(new.len() <= 150, "{} series: {new:#?}", new.len());
    for (method, status) in ordinary {
        let labels = [ours, ("method", method), ("code", &status.to_string())];
        for name in ["http_dataplane_requests_total", "http_dataplane_request_duration_seconds_count"] {
            assert!((after.sum(name, &labels) - 2.0).abs() < 0.1, "{name}{labels:?}");
        }
    }
    world.finish().await;
}

#[tokio::test]
async fn gauges_return_to_zero_when_everybody_has_left() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("a.example", &upstream).run().await;
    {
        let mut one = world.wire().await;
        assert_eq!(one.get("a.example", "/").await.status(), 200);
        let mut two = world.h2().await;
        let request = hyper::Request::get("http://a.example/").body(Fed::empty()).unwrap();
        assert_eq!(two.send(request).await.unwrap().status(), 200);
        world.sum_becomes("adit_public_connections", &[], 2).await;
    }
    world.sum_becomes("adit_public_connections", &[], 0).await;
    world.sum_becomes("adit_flows", &[], 0).await;
    world.sum_becomes("http_controlplane_connected_gauge", &[], 1).await;
    world.finish().await;
}
