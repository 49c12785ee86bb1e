//! The authority: what it makes, whom it recognises, and what it does with files that are missing.

use std::fs;

use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

const NOW: Timestamp = 1_800_000_000;
const DAY: u64 = 24 * 3600;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn authority() -> Authority {
    Authority::in_memory(Some("example.org"), NOW).unwrap()
}

#[test]
fn an_issued_certificate_says_who_it_is_for_how_long_and_nothing_that_was_asked_for() {
    let authority = authority();
    let mut asked = CertificateParams::new(vec!["evil.example".into()]).unwrap();
    asked.distinguished_name.push(DnType::CommonName, "admin");
    asked.subject_alt_names.push(SanType::URI("spiffe://example.org/identity/admin".try_into().unwrap()));
    asked.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let asked = asked.serialize_request(&key).unwrap().pem().unwrap();
    let issued = authority.issue(&name("Dev.Client"), &asked, IDENTITY_LIFE, NOW).unwrap();
    assert_eq!(issued.credential.not_after, NOW + DAY);
    assert_eq!(issued.credential.serial.len(), 32);
    let chain = chain(&issued.chain_pem);
    assert_eq!(chain.len(), 2, "the leaf and the intermediate");
    let peer = authority.peer(&chain).unwrap();
    let PeerCertificate { identity, serial, not_after } = peer;
    assert_eq!(
        (identity.as_str(), serial, not_after),
        ("dev.client", issued.credential.serial.clone(), issued.credential.not_after)
    );
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().to_string(), "CN=Dev.Client");
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    let usages = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usages.client_auth && !usages.server_auth && !usages.any);
    assert_eq!(*leaf.public_key().subject_public_key.data, *key.public_key_raw());
    let again = authority.issue(&name("dev.client"), &asked, IDENTITY_LIFE, NOW).unwrap();
    assert_ne!(again.credential.serial, issued.credential.serial);
}

#[test]
fn names_with_characters_that_uris_do_not_have_come_back() {
    let authority = authority();
    for text in ["a@b", "a+b.c_d-e", "A@B+C", &"x".repeat(200)] {
        let issued =
            authority.issue(&name(text), &csr(&KeyPair::generate().unwrap()), IDENTITY_LIFE, NOW).unwrap();
        assert_eq!(authority.peer(&chain(&issued.chain_pem)).unwrap().identity, text.to_ascii_lowercase());
    }
}

#[test]
fn requests_with_a_weak_key_a_wrong_signature_or_something_else_are_refused() {
    let authority = authority();
    let refused = |pem: &str| {
        let error = authority.issue(&name("x"), pem, IDENTITY_LIFE, NOW).unwrap_err();
        assert!(matches!(error, AuthorityError::Csr(_)), "{error}");
        error.to_string()
    };
    let key = KeyPair::generate().unwrap();
    let good = csr(&key);
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let pem = csr(&KeyPair::generate_for(algorithm).unwrap());
        assert!(authority.issue(&name("x"), &pem, IDENTITY_LIFE, NOW).is_ok());
    }
    for algorithm in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P521_SHA512] {
        assert!(refused(&csr(&KeyPair::generate_for(algorithm).unwrap())).contains("P-256"));
    }
    assert!(refused("").contains("PEM"));
    assert!(refused(&format!("{good}{good}")).contains("one PEM block"));
    assert!(refused(&"x".repeat(9000)).contains("too long"));
    let mut der =
        rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
    let pem = |der: &[u8]| {
        use base64::Engine as _;
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    assert!(authority.issue(&name("x"), &pem(&der), IDENTITY_LIFE, NOW).is_ok());
    assert!(refused(&pem(&[&der[..], &[0]].concat())).contains("follows"));
    // The common name, which the signature covers.
    let at = der.windows(5).position(|part| part == b"rcgen").unwrap();
    der[at] ^= 1;
    assert!(refused(&pem(&der)).contains("not signed by its own key"));
}

#[test]
fn a_peer_is_the_presented_leaf_and_nothing_else() {
    let authority = authority();
    let mine =
        authority.issue(&name("mine"), &csr(&KeyPair::generate().unwrap()), IDENTITY_LIFE, NOW).unwrap();
    let admin =
        authority.issue(&name("admin"), &csr(&KeyPair::generate().unwrap()), IDENTITY_LIFE, NOW).unwrap();
    let mut presented = chain(&mine.chain_pem);
    presented.extend(chain(&admin.chain_pem));
    assert_eq!(authority.peer(&presented).unwrap().identity, "mine");
    assert_eq!(authority.peer(&[]), None);
    let intermediate = &chain(&mine.chain_pem)[1..];
    assert_eq!(authority.peer(intermediate), None, "an authority is nobody");
    assert_eq!(authority.peer(&authority.server_leaf(&[], NOW).unwrap().chain), None);
    let other = Authority::in_memory(Some("other.org"), NOW).unwrap();
    assert_eq!(other.peer(&chain(&mine.chain_pem)), None, "another trust domain");
}

#[test]
fn a_certificate_that_names_several_or_oddly_written_identities_is_nobodys() {
    let authority = authority();
    let of = |uris: &[&str]| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        authority.peer(&[certificate]).map(|peer| peer.identity)
    };
    assert_eq!(of(&["spiffe://example.org/identity/a%40b"]).as_deref(), Some("a@b"));
    for uris in [
        &["spiffe://example.org/identity/a", "spiffe://example.org/identity/b"][..],
        &["spiffe://example.org/identity/a", "https://example.org/"],
        &["spiffe://example.org/identity/A"],
        &["spiffe://example.org/identity/a@b"],
        &["spiffe://example.org/identity/%61"],
        &["spiffe://example.org/identity/a/b"],
        &["spiffe://example.org/identity/a."],
        &["spiffe://example.org/identity/"],
        &["spiffe://EXAMPLE.org/identity/a"],
        &["spiffe://example.org/gateway/a"],
        &[],
    ] {
        assert_eq!(of(uris), None, "{uris:?}");
    }
}

#[test]
fn the_control_ports_certificate_ends_with_the_root_to_pin() {
    let authority = authority();
    let leaf = authority.server_leaf(&["gw.example".into()], NOW).unwrap();
    assert_eq!(leaf.chain.len(), 3);
    assert_eq!(leaf.chain.last(), authority.roots().first());
    assert_eq!(chain(authority.roots_pem()), authority.roots());
    assert_eq!(fingerprint(&leaf.chain[2]).len(), 64);
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(names, 4, "its own and those of this machine");
    let error = authority.server_leaf(&["ä".into()], NOW).unwrap_err().to_string();
    assert!(error.contains('ä'), "{error}");
}

#[test]
fn an_authority_survives_a_restart_and_its_keys_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let first = Authority::open(&state, None, NOW).unwrap();
    let second = Authority::open(&state, None, NOW + 5).unwrap();
    assert_eq!(first.roots(), second.roots());
    assert_eq!(first.trust_domain(), second.trust_domain());
    assert!(first.trust_domain().starts_with("adit-"));
    assert_eq!(first.secret(b"x"), second.secret(b"x"));
    assert_ne!(first.secret(b"x"), first.secret(b"y"));
    assert_eq!(first.issuing().key_id, second.issuing().key_id);
    #[cfg(unix)]
    for file in ["ca.key", "ca.crt", "intermediate.key", "intermediate.crt"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(state.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_dir(&state).unwrap().count(), 4, "no temporary files are left");
}

#[test]
fn the_roots_key_may_be_taken_away_until_the_intermediate_has_to_be_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let (state, safe) = (directory.path().join("state"), directory.path().join("safe.key"));
    let before = Authority::open(&state, None, NOW).unwrap();
    fs::rename(state.join("ca.key"), &safe).unwrap();
    let authority = Authority::open(&state, None, NOW + DAY).unwrap();
    let request = csr(&KeyPair::generate().unwrap());
    assert!(authority.issue(&name("x"), &request, IDENTITY_LIFE, NOW + DAY).is_ok());
    assert!(authority.server_leaf(&[], NOW + DAY).is_ok());
    assert_eq!(authority.maintain(NOW + DAY).unwrap(), Maintained::Fine);

    let late = NOW + 3 * 365 * DAY - 100 * DAY;
    let key = state.join("ca.key");
    let until = authority.issuing_until();
    assert_eq!(authority.maintain(late).unwrap(), Maintained::RootNeeded { key, until });
    let last = authority.issue(&name("x"), &request, Duration::from_hours(24 * 200), late).unwrap();
    assert_eq!(last.credential.not_after, until, "nothing outlives what signed it");
    let error = authority.issue(&name("x"), &request, IDENTITY_LIFE, until).unwrap_err().to_string();
    assert!(error.contains("bring back") && error.contains("ca.key"), "{error}");
    let error = Authority::open(&state, None, until).unwrap_err().to_string();
    assert!(error.contains("bring back") && error.contains("ca.key"), "{error}");

    fs::copy(&safe, state.join("ca.key")).unwrap();
    assert_eq!(authority.maintain(late).unwrap(), Maintained::Renewed);
    assert!(authority.issuing_until() > until);
    assert_eq!(authority.issuing().key_id, before.issuing().key_id, "tokens on their way stay good");
    assert_eq!(Authority::open(&state, None, late).unwrap().issuing_until(), authority.issuing_until());
}

#[test]
fn without_the_roots_key_a_missing_intermediate_is_an_error_that_says_what_to_bring_back() {
    for lost in ["intermediate.key", "intermediate.crt"] {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), None, NOW).unwrap();
        fs::remove_file(directory.path().join("ca.key")).unwrap();
        fs::remove_file(directory.path().join(lost)).unwrap();
        let error = Authority::open(directory.path(), None, NOW).unwrap_err().to_string();
        assert!(error.contains(lost) && error.contains("ca.key"), "{error}");
    }
}

#[test]
fn writing_that_was_interrupted_anywhere_is_finished_at_the_next_start() {
    for lost in [
        &["ca.crt", "intermediate.key", "intermediate.crt"][..],
        &["intermediate.key", "intermediate.crt"],
        &["intermediate.crt"],
        &["intermediate.key"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), None, NOW).unwrap();
        for file in lost {
            fs::remove_file(directory.path().join(file)).unwrap();
        }
        let authority = Authority::open(directory.path(), None, NOW).unwrap();
        let request = csr(&KeyPair::generate().unwrap());
        assert!(authority.issue(&name("x"), &request, IDENTITY_LIFE, NOW).is_ok(), "{lost:?}");
        let again = Authority::open(directory.path(), None, NOW).unwrap();
        assert_eq!(again.roots(), authority.roots());
    }
}

#[test]
fn gateways_that_start_at_once_in_one_directory_make_one_authority() {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<Authority> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Authority::open(directory.path(), None, NOW).unwrap())).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        all.iter()
            .all(|one| one.roots() == all[0].roots() && one.issuing().key_id == all[0].issuing().key_id)
    );
}

#[test]
fn files_that_do_not_fit_or_cannot_be_read_are_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::open(one.path(), None, NOW).unwrap();
    Authority::open(two.path(), None, NOW).unwrap();
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let error = Authority::open(one.path(), None, NOW).unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("does not belong"), "{error}");
    fs::remove_file(one.path().join("ca.key")).unwrap();
    fs::remove_file(one.path().join("ca.crt")).unwrap();
    let error = Authority::open(one.path(), None, NOW).unwrap_err().to_string();
    assert!(error.contains("ca.crt") && error.contains("missing"), "{error}");
    fs::write(two.path().join("intermediate.key"), "nonsense").unwrap();
    let error = Authority::open(two.path(), None, NOW).unwrap_err().to_string();
    assert!(error.contains("intermediate.key"), "{error}");
    for domain in ["", "Example.org", "a/b", "a b"] {
        let error = Authority::in_memory(Some(domain), NOW).unwrap_err().to_string();
        assert!(error.contains("trust domain"), "{error}");
    }
}

#[test]
fn a_root_of_the_older_form_is_kept_and_signs_leaves_itself() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Adit gateway authority");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let pinned = params.self_signed(&key).unwrap();
    fs::write(directory.path().join("ca.crt"), pinned.pem()).unwrap();
    fs::write(directory.path().join("ca.key"), key.serialize_pem()).unwrap();
    let authority = Authority::open(directory.path(), None, NOW).unwrap();
    assert_eq!(authority.roots(), [pinned.der().clone()]);
    let leaf = authority.server_leaf(&[], NOW).unwrap();
    assert_eq!(leaf.chain.len(), 2);
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    let (_, root) = X509Certificate::from_der(pinned.der()).unwrap();
    parsed.verify_signature(Some(root.public_key())).unwrap();
    let issued =
        authority.issue(&name("x"), &csr(&KeyPair::generate().unwrap()), IDENTITY_LIFE, NOW).unwrap();
    assert_eq!(chain(&issued.chain_pem).len(), 1);
    assert_eq!(authority.maintain(NOW).unwrap(), Maintained::Fine);
    assert!(!directory.path().join("intermediate.crt").exists());
    fs::remove_file(directory.path().join("ca.key")).unwrap();
    let error = Authority::open(directory.path(), None, NOW).unwrap_err().to_string();
    assert!(error.contains("ca.key"), "{error}");
}
