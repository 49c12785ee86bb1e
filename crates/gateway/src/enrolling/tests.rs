//! Enrollment and renewal against a store, without HTTP.

use adit_control::audit::Actor;
use adit_control::model::{Identity as Resource, Kind, Resource as Any};
use adit_control::store::memory::MemoryStore;
use adit_control::{Local, Rules, Snapshots};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::tls::{Authorities, now};

struct World {
    enrolling: Arc<Enrolling>,
    changes: Arc<Changes>,
    snapshots: Arc<Snapshots>,
}

fn actor() -> Actor {
    Actor { name: "local".into(), address: None }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn csr() -> String {
    CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

impl World {
    async fn new() -> Self {
        let mut authorities = Authorities::default();
        let tls =
            crate::config::Tls::Auto { names: vec!["gw.example".into(), "::1".into()], directory: None };
        let identity = Identity::load(&tls, &mut authorities).unwrap();
        let authority = authorities.open(None).unwrap();
        let enrolling = Arc::new(Enrolling::new(authority, &identity, &State::default(), 8123));
        let rules = Rules::default();
        let snapshots = Arc::new(Snapshots::new(rules.clone()));
        let local = Local { rules, tokens: Vec::new() };
        let store = Arc::new(MemoryStore::new());
        let changes = Changes::open(store, local, Arc::clone(&snapshots), now()).await.unwrap();
        let laptop = Resource {
            name: name("Laptop"),
            attributes: Vec::new(),
            admin: false,
            metrics: false,
            disabled: false,
        };
        let batch = adit_control::changes::Batch {
            changes: vec![adit_control::changes::Change::Create(Any::Identity(laptop))],
            ..Default::default()
        };
        changes.apply(&actor(), batch, now()).await.unwrap();
        Self { enrolling, changes, snapshots }
    }

    async fn token(&self) -> String {
        let laptop = name("Laptop");
        let invitation = self.changes.invite(&actor(), &laptop, self.enrolling.life(), now()).await.unwrap();
        self.enrolling.token(&laptop, &invitation.jti, invitation.expires_at, now()).unwrap()
    }

    async fn enroll(&self, token: &str) -> Result<PeerCertificate, ChangeError> {
        let request = EnrollRequest { token: token.to_owned(), csr: csr() };
        self.enrolling
            .enroll(&self.changes, &request, None, now())
            .await
            .map(|certified| self.peer(&certified))
    }

    fn peer(&self, certified: &Certified) -> PeerCertificate {
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(certified.cert.as_bytes()).map(Result::unwrap).collect();
        self.enrolling.authority().peer(&chain).unwrap()
    }

    fn is_good(&self, peer: &PeerCertificate) -> bool {
        self.snapshots.current().credential(&peer.identity, &peer.serial, now()).is_some()
    }
}

#[tokio::test]
async fn a_token_names_every_address_of_the_gateway_and_what_to_pin() {
    let world = World::new().await;
    let token = world.token().await;
    let claims = world.enrolling.authority().verify(&token, "https://gw.example:8123", now()).unwrap();
    assert_eq!(claims.sub, "Laptop");
    assert_eq!(claims.ctrls, ["https://[::1]:8123"]);
    let root = world.enrolling.authority().roots().first().unwrap();
    assert_eq!(claims.ca, adit_control::authority::fingerprint(root));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_uses_of_one_token_at_once_one_gets_a_certificate() {
    let world = Arc::new(World::new().await);
    let token = world.token().await;
    let gate = Arc::new(tokio::sync::Barrier::new(64));
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (world, token, gate) = (Arc::clone(&world), token.clone(), Arc::clone(&gate));
        all.spawn(async move {
            gate.wait().await;
            world.enroll(&token).await
        });
    }
    let (given, refused): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(given.len(), 1);
    assert!(refused.iter().all(|error| error.as_ref().is_err_and(|error| error.code == "enrollment_used")));
    assert_eq!(world.changes.model().credentials[&name("laptop")].len(), 1);
    assert!(world.is_good(given[0].as_ref().unwrap()));
}

#[tokio::test]
async fn a_certificate_is_renewed_while_it_is_listed_and_not_after() {
    let world = World::new().await;
    let first = world.enroll(&world.token().await).await.unwrap();
    let renew = async |peer: &PeerCertificate| {
        let request = RenewRequest { csr: csr() };
        world.enrolling.renew(&world.changes, peer, &request, None, now()).await.map(|done| world.peer(&done))
    };
    let second = renew(&first).await.unwrap();
    assert_ne!(first.serial, second.serial);
    assert!(world.is_good(&first) && world.is_good(&second), "the old one is good until it ends");
    let laptop = name("laptop");
    world.changes.revoke_credentials(&actor(), &laptop, Some(&first.serial), now()).await.unwrap();
    assert!(!world.is_good(&first) && !world.is_good(&second), "what was renewed from it goes with it");
    assert_eq!(renew(&first).await.unwrap_err().code, "revoked");
    assert_eq!(renew(&second).await.unwrap_err().code, "revoked");
    let second = world.enroll(&world.token().await).await.unwrap();
    // Made anew under the same name, an identity knows nothing of the certificates of the former one.
    let batch = |change| adit_control::changes::Batch { changes: vec![change], ..Default::default() };
    let delete = adit_control::changes::Change::Delete(Kind::Identity, laptop, None);
    world.changes.apply(&actor(), batch(delete), now()).await.unwrap();
    assert!(!world.is_good(&second));
    assert!(renew(&second).await.is_err());
    let again = Resource {
        name: name("laptop"),
        attributes: Vec::new(),
        admin: false,
        metrics: false,
        disabled: false,
    };
    let create = adit_control::changes::Change::Create(Any::Identity(again));
    world.changes.apply(&actor(), batch(create), now()).await.unwrap();
    assert!(!world.is_good(&second));
    assert_eq!(renew(&second).await.unwrap_err().code, "revoked");
}

#[tokio::test]
async fn what_is_wrong_with_an_enrollment_is_said_by_status_and_code() {
    let world = World::new().await;
    let token = world.token().await;
    let ask = async |token: &str, csr: &str, at| {
        let request = EnrollRequest { token: token.to_owned(), csr: csr.to_owned() };
        let error = world.enrolling.enroll(&world.changes, &request, None, at).await.unwrap_err();
        (error.status, error.code)
    };
    assert_eq!(ask("nonsense", &csr(), now()).await, (401, "enrollment_refused"));
    assert_eq!(ask(&"x".repeat(10_000), &csr(), now()).await, (413, "enrollment_refused"));
    assert_eq!(ask(&token, &csr(), now() + 4 * 3600).await, (410, "enrollment_expired"));
    assert_eq!(ask(&token, "nonsense", now()).await, (400, "bad_request"));
    // None of that has used it up.
    assert!(world.enroll(&token).await.is_ok());
    assert_eq!(ask(&token, &csr(), now()).await, (409, "enrollment_used"));
}
