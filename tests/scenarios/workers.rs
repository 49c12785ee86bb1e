//! Connections and lanes on several threads at once.

use adit_testkit::{Upstream, World, within};

#[tokio::test]
async fn connections_on_several_threads_share_the_sessions_and_the_counts_stay_exact() {
    let upstream = Upstream::answering(|request| adit_testkit::Answer::text(&request.content.bytes)).await;
    let mut world = World::new().workers(4).offer("a.example", &upstream).run().await;
    let body = vec![b'x'; 300_000];
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (mut client, body) = (world.wire().await, body.clone());
        clients.spawn(async move {
            for _ in 0..10 {
                let reply = client.post("a.example", "/", &body).await;
                assert!(reply.content.bytes == body, "{reply:?}");
            }
        });
    }
    within("every echo", async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    })
    .await;
    world.sum_becomes("http_dataplane_requests_total", &[("code", "200")], 160).await;
    world.sum_becomes("adit_public_connections", &[], 0).await;
    let agent = world.take_agent(0);
    assert_eq!(within("the agent's drain", agent.drain()).await, 0);
    world.finish().await;
}
