//! Registration under both locks: who wins, who is evicted, what is forgotten.

use adit_control::model::SecretText;
use adit_proto::handshake::{Offer, PROOF_LEN};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::Side;
use bytes::Bytes;
use http::Request;

use adit_tunnel::workers::Workers;

use super::*;
use crate::config::Limits;
use crate::flow::Connection;

/// Sessions with small bounds, and somewhere for them to run.
struct Table {
    sessions: Arc<Sessions>,
    observe: Observe,
    scope: Scope,
    /// The other ends: silent, and there.
    peers: Mutex<Vec<tokio::io::DuplexStream>>,
}

impl Table {
    fn new(max: usize, max_services: usize, max_labels: usize) -> Self {
        let observe = Observe::new(None, None, "test", &Workers::default());
        let limits = Limits { max_sessions: max, max_idle_streams: 1, ..Limits::default() };
        let live = Arc::new(Live::new(limits, Duration::ZERO));
        let mut sessions = Sessions::new(observe.clone(), live);
        let inner = Arc::get_mut(&mut sessions).unwrap();
        (inner.max_services, inner.max_labels) = (max_services, max_labels);
        Self { sessions, observe, scope: Scope::new(), peers: Mutex::default() }
    }

    fn register(&self, id: (u8, u64), hosts: &[&str]) -> Result<Registration, Reason> {
        let (io, peer) = tokio::io::duplex(4096);
        self.peers.lock().push(peer);
        let session = Session::start(io, Side::Gateway, &self.scope);
        self.sessions.register(arrival(id, hosts), session).map_err(|(reason, _)| reason)
    }

    fn knows(&self, host: &str) -> bool {
        self.sessions.service_for(host.parse().ok().as_ref()).is_some()
    }

    /// Counts one request for a host.
    fn count(&self, host: &str) {
        let peer = "192.0.2.1:1".parse().unwrap();
        let mut record =
            self.observe.begin(&Request::new(Bytes::new()), &Connection::new(peer, "http", None));
        record.routed(&self.sessions.service_for(host.parse().ok().as_ref()).unwrap());
    }

    fn metrics(&self) -> String {
        self.observe.metrics().render(None).body
    }
}

/// Endpoints of the service that is offered first.
fn endpoints(registration: &Registration) -> usize {
    let bound = registration.agent.bound.lock();
    bound.list[0].endpoint.as_ref().unwrap().0.endpoint_count()
}

fn arrival((instance, generation): (u8, u64), hosts: &[&str]) -> Arrival {
    let offer = |host: &&str| Offer { service: host.parse().unwrap(), upstream: "x".to_owned() };
    let hello = Hello {
        versions: (1, 1),
        capabilities: 0,
        instance: InstanceId::from_bytes([instance; 16]),
        generation,
        release: "test".to_owned(),
        hostname: "test".to_owned(),
        offers: hosts.iter().map(offer).collect(),
        proof: [0; PROOF_LEN],
    };
    let decided =
        |offer: &Offer| Decided { served_as: Some(offer.service.clone()), claim: None, unclaimed: None };
    Arrival {
        decided: hello.offers.iter().map(decided).collect(),
        hello,
        who: Who::Token("default".parse().unwrap()),
        shown: Shown::Token(SecretText::new("t".to_owned())),
        granted: 0,
        remote: "192.0.2.1:1".parse().unwrap(),
        carrier: Carrier { transport: "tls", tls: "full" },
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_nobody_offers_is_forgotten_after_an_hour_with_its_series() {
    let table = Table::new(9, 9, 9);
    let standing = table.register((1, 1), &["a.example", "*.b.example"]).unwrap();
    let leaving = table.register((2, 1), &["c.example", "*"]).unwrap();
    table.count("c.example");
    assert!(table.metrics().contains("c.example"));
    drop(leaving);
    tokio::time::advance(REMEMBERED - Duration::from_secs(1)).await;
    table.sessions.sweep(HELD);
    assert!(table.knows("c.example"));
    tokio::time::advance(Duration::from_secs(1)).await;
    table.sessions.sweep(HELD);
    assert!(!table.knows("c.example") && !table.knows("x.example"));
    assert!(table.knows("a.example") && table.knows("x.b.example"), "these have an agent");
    assert!(!table.metrics().contains("c.example"), "{}", table.metrics());
    assert!(!table.metrics().contains("\"*\""), "{}", table.metrics());
    drop(standing);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_somebody_offers_again_is_as_young_as_ever() {
    let table = Table::new(9, 9, 9);
    drop(table.register((1, 1), &["a.example"]).unwrap());
    tokio::time::advance(REMEMBERED).await;
    drop(table.register((1, 2), &["a.example"]).unwrap());
    table.sessions.sweep(HELD);
    assert!(table.knows("a.example"));
}

#[tokio::test(start_paused = true)]
async fn names_of_the_dead_never_keep_new_ones_out() {
    let table = Table::new(9, 4, 4);
    let standing = table.register((1, 1), &["a.example"]).unwrap();
    for number in 0..20_u64 {
        let (x, y) = (format!("x{number}.example"), format!("y{number}.example"));
        drop(table.register((2, number + 1), &[&x, &y]).unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(table.knows("y19.example") && !table.knows("x0.example"), "the oldest went first");
    assert!(table.knows("a.example"));
    let full = table.register((3, 1), &["1.example", "2.example", "3.example"]).unwrap();
    assert!(matches!(table.register((4, 1), &["b.example"]), Err(Reason::Overloaded)), "all are offered");
    drop((standing, full));
}

#[tokio::test(start_paused = true)]
async fn a_new_name_gets_the_label_of_one_that_is_long_gone() {
    let table = Table::new(9, 100, 2);
    drop(table.register((1, 1), &["a.example", "b.example"]).unwrap());
    // So that these two are the oldest, and not only as old as the next.
    tokio::time::advance(Duration::from_secs(1)).await;
    let young = table.register((2, 1), &["c.example"]).unwrap();
    table.count("c.example");
    assert!(!table.metrics().contains("c.example"), "the names it would follow may come back");
    drop(young);
    tokio::time::advance(HELD).await;
    let late = table.register((3, 1), &["d.example"]).unwrap();
    table.count("d.example");
    assert!(table.metrics().contains("d.example") && !table.metrics().contains("a.example"));
    assert!(!table.knows("a.example") && table.metrics().contains("host=\"other\""));
    drop(late);
}

#[tokio::test]
async fn who_comes_first_is_decided_when_a_session_is_taken_in() {
    let table = Table::new(1, 9, 9);
    let newer = table.register((1, 2), &["a.example"]).unwrap();
    assert!(matches!(table.register((1, 1), &["a.example"]), Err(Reason::Replaced)));
    assert!(matches!(table.register((2, 1), &["a.example"]), Err(Reason::Overloaded)));
    assert_eq!((table.sessions.count(), newer.agent.session.end()), (1, None));
    assert_eq!(endpoints(&newer), 1);
}

#[tokio::test]
async fn a_ghost_is_closed_by_its_successor_and_a_session_that_leaves_is_not() {
    let table = Table::new(9, 9, 9);
    let ghost = table.register((1, 1), &["a.example"]).unwrap();
    let leaving = table.register((1, 2), &["a.example"]).unwrap();
    assert_eq!(ghost.agent.session.end(), Some(Reason::Replaced));
    leaving.agent.session.announce(Reason::Draining);
    let last = table.register((1, 3), &["a.example"]).unwrap();
    assert_eq!((leaving.agent.session.end(), last.agent.session.end()), (None, None));
    assert_eq!(endpoints(&last), 1, "only the last one is given requests");
    // Nobody answers at the other end, so it is closed when its time is over.
    let live = Live::new(Limits::default(), Duration::from_millis(10));
    leaving.agent.live(&live, &table.observe).await;
    assert_eq!(leaving.agent.session.end(), Some(Reason::Replaced));
    assert!(table.metrics().contains("adit_session_takeovers_total 1"), "{}", table.metrics());
}
