//! Which agent and upstream a host reaches, and what is said when there is none.

use std::time::Duration;

use adit_testkit::{AgentPlan, Upstream, World, until, within};

async fn text(world: &World, host: &str) -> String {
    let reply = world.get(host, "/").await;
    assert_eq!(reply.status(), 200, "{host}: {}", reply.text());
    reply.text()
}

#[tokio::test]
async fn the_most_specific_offer_answers_whichever_agent_made_it() {
    let [exact, near, far, any] = [
        Upstream::named("exact").await,
        Upstream::named("near").await,
        Upstream::named("far").await,
        Upstream::named("any").await,
    ];
    let mut world = World::new().offer("*", &any).offer("a.b.example", &exact).run().await;
    world.join(AgentPlan::new().offer("*.example", &far).offer("*.b.example", &near)).await;
    for (host, name) in [
        ("a.b.example", "exact"),
        ("c.b.example", "near"),
        ("x.y.b.example", "near"),
        ("b.example", "far"),
        ("c.example", "far"),
        ("x.a.b.example", "near"),
        ("example", "any"),
        ("badexample", "any"),
        ("192.0.2.1", "any"),
        ("[2001:db8::1]", "any"),
    ] {
        assert_eq!(text(&world, host).await, name, "{host}");
    }
    let mut old = world.wire().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.reply().await.text(), "any", "a request that names no host reaches only the catch-all");
    world.finish().await;
}

#[tokio::test]
async fn one_agent_serves_several_hosts_each_from_its_own_upstream() {
    let [one, two] = [Upstream::named("one").await, Upstream::named("two").await];
    let world = World::new().offer("one.example", &one).offer("two.example", &two).run().await;
    let mut client = world.wire().await;
    for _ in 0..5 {
        assert_eq!(client.get("one.example", "/").await.text(), "one");
        assert_eq!(client.get("two.example", "/").await.text(), "two");
    }
    world.finish().await;
}

#[tokio::test]
async fn hosts_compare_without_case_trailing_dot_and_port() {
    let upstream = Upstream::named("ok").await;
    let world = World::new().offer("Web.Example", &upstream).run().await;
    for host in
        ["web.example", "WEB.EXAMPLE", "Web.Example.", "web.example:80", "web.example:8443", "web.example.:1"]
    {
        assert_eq!(text(&world, host).await, "ok", "{host}");
    }
    let mut client = world.wire().await;
    client.send("GET http://WEB.example/x HTTP/1.1\r\nhost: web.example\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "ok");
    let mut client = world.h2().await;
    assert_eq!(client.get("WEB.example:80", "/").await.status(), 200);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn several_agents_of_one_host_take_turns() {
    let upstreams =
        [Upstream::named("one").await, Upstream::named("two").await, Upstream::named("three").await];
    let mut world = World::new().run().await;
    for upstream in &upstreams {
        world.join(AgentPlan::new().offer("a.example", upstream)).await;
    }
    let mut client = world.wire().await;
    for _ in 0..30 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
    }
    for upstream in &upstreams {
        assert_eq!(upstream.requests().len(), 10, "{upstream}");
    }
    // When one of them is gone, the others go on.
    drop(world.take_agent(0));
    world.agents_become(2).await;
    for _ in 0..10 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
    }
    assert_eq!(upstreams[0].requests().len(), 10);
    world.finish().await;
}

#[tokio::test]
async fn an_unknown_host_is_404_and_a_host_without_its_agent_is_503() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().offer("a.example", &upstream).run().await;
    let reply = world.get("nobody.example", "/").await;
    assert_eq!((reply.status(), reply.reason()), (404, Some("no_route")));
    assert_eq!(reply.field("retry-after"), None);

    drop(world.take_agent(0));
    world.agents_become(0).await;
    let reply = world.get("a.example", "/").await;
    assert_eq!((reply.status(), reply.reason()), (503, Some("no_agent")));
    assert_eq!(reply.field("retry-after"), Some("1"));
    let mut client = world.h2().await;
    assert_eq!(client.get("a.example", "/").await.headers()["adit-reason"], "no_agent");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_request_that_waits_is_served_by_the_agent_that_comes_back() {
    let upstream = Upstream::named("ok").await;
    let plan = AgentPlan::new().offer("a.example", &upstream);
    let mut world = World::new().limits(|limits| limits.agent_wait = Duration::from_secs(15)).run().await;
    world.join(plan.clone()).await;
    drop(world.take_agent(0));
    world.agents_become(0).await;
    let mut client = world.wire().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 4\r\n\r\nbody").await;
    world.sum_becomes("adit_flows", &[], 1).await;
    world.join(plan).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
    assert_eq!(upstream.requests()[0].content.bytes, b"body");
    world.finish().await;
}

#[tokio::test]
async fn right_after_a_restart_even_an_unknown_host_waits_for_its_agent() {
    let upstream = Upstream::named("ok").await;
    let mut world = World::new().limits(|limits| limits.agent_wait = Duration::from_secs(15)).run().await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    world.sum_becomes("adit_flows", &[], 1).await;
    world.join(AgentPlan::new().offer("a.example", &upstream)).await;
    assert_eq!(client.reply().await.status(), 200);
    world.finish().await;
}

#[tokio::test]
async fn an_address_that_is_not_allowed_reaches_nothing() {
    let upstream = Upstream::named("ok").await;
    let world = World::new()
        .gateway(|config| {
            config.allow = vec!["192.0.2.0/24".parse().unwrap()];
            config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        })
        .offer("a.example", &upstream)
        .run()
        .await;
    let reply = world.get("a.example", "/").await;
    assert_eq!((reply.status(), reply.reason()), (403, Some("address_denied")));
    let mut client = world.wire().await;
    for (address, status) in [("192.0.2.7", 200), ("198.51.100.1", 403), ("192.0.2.7, 198.51.100.1", 403)] {
        client.send(format!("GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: {address}\r\n\r\n")).await;
        assert_eq!(client.reply().await.status(), status, "{address}");
    }
    assert_eq!(upstream.requests().len(), 1);
    world.finish().await;
}

#[tokio::test]
async fn a_client_that_gives_up_waiting_leaves_nothing_behind() {
    let upstream = Upstream::named("ok").await;
    let plan = AgentPlan::new().offer("a.example", &upstream);
    let mut world = World::new().limits(|limits| limits.agent_wait = Duration::from_secs(15)).run().await;
    world.join(plan.clone()).await;
    drop(world.take_agent(0));
    world.agents_become(0).await;
    let mut client = world.wire().await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    world.sum_becomes("adit_flows", &[], 1).await;
    drop(client);
    world.sum_becomes("adit_flows", &[], 0).await;
    world.join(plan).await;
    assert_eq!(upstream.requests().len(), 0);
    let agent = world.take_agent(1);
    within("the agent's drain", agent.drain()).await;
    until("the gateway has seen it", || async {
        let samples = world.metrics().await;
        let ended = samples.sum("adit_sessions_ended_total", &[("reason", "agent_draining")]);
        if ended > 0.5 { Ok(()) } else { Err(samples.series_of("adit_sessions_ended_total")) }
    })
    .await;
    world.finish().await;
}
