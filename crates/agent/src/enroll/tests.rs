//! What the enrolling side refuses before it opens a connection, and whom it takes for the gateway.

use std::sync::Arc;

use rcgen::{BasicConstraints, IsCa, Issuer};
use rustls::client::danger::ServerCertVerifier as _;

use super::call::Address;
use super::*;

fn token(head: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(head), encode(claims), encode("signature"))
}

const HEAD: &str = r#"{"alg":"ES256","kid":"x"}"#;

fn claims(exp: u64, iss: &str, ca: &str) -> String {
    serde_json::json!({"iss": iss, "sub": "a", "aud": "x", "exp": exp, "iat": 0, "jti": "x", "em": "ott", "ca": ca})
        .to_string()
}

#[tokio::test]
async fn a_token_that_cannot_be_good_is_refused_here_with_the_reason() {
    let (late, ca) = (u64::MAX, "00".repeat(32));
    let good = |iss: &str| token(HEAD, &claims(late, iss, &ca));
    for (jwt, word) in [
        (String::new(), "three parts"),
        ("a.b.c".to_owned(), "base64url"),
        ("x".repeat(MAX_TOKEN + 1), "too long"),
        (token(r#"{"alg":"none"}"#, &claims(late, "https://h:1", &ca)), "ES256"),
        (token(r#"{"alg":"HS256"}"#, &claims(late, "https://h:1", &ca)), "ES256"),
        (token(HEAD, "{}"), "lacks"),
        (token(HEAD, &claims(late, "https://h:1", &ca).replace("ott", "ottca")), "method"),
        (token(HEAD, &claims(late, "https://h:1", "")), "`ca`"),
        (token(HEAD, &claims(late, "https://h:1", "xyz")), "`ca`"),
        (good("http://h:1"), "https://"),
        (good("file:///etc/passwd"), "https://"),
        (good("https://user@h:1"), "https://"),
        (good("https://h:1/path"), "https://"),
        (good("https://h:1/?q"), "https://"),
        (good(""), "https://"),
    ] {
        let error = enroll(&jwt, &Egress::direct()).await.unwrap_err().to_string();
        assert!(error.contains(word), "{jwt}: {error}");
    }
    let now = seconds(SystemTime::now());
    let error = enroll(&token(HEAD, &claims(now - 600, "https://h:1", &ca)), &Egress::direct()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("expired 10 minutes ago") && error.contains("clock"), "{error}");
}

#[test]
fn addresses_are_https_a_host_and_a_port() {
    let parse = |text| Address::parse(text).map(|address| (address.host, address.port));
    assert_eq!(parse("https://gw.example:8123"), Some(("gw.example".into(), 8123)));
    assert_eq!(parse("https://gw.example/"), Some(("gw.example".into(), 443)));
    assert_eq!(parse("https://[::1]:8123"), Some(("::1".into(), 8123)));
    assert_eq!(Address::parse("https://[::1]:8123").unwrap().to_string(), "https://[::1]:8123");
    for text in
        ["gw.example:8123", "wss://gw:1", "https://gw:0", "https://gw:", "https://:1", "https://gw:1#x"]
    {
        assert_eq!(parse(text).filter(|_| text != "https://gw:1#x"), None, "{text}");
    }
}

#[test]
fn further_addresses_are_tried_once_each_and_not_without_end() {
    let jwt = token(HEAD, &claims(9, "https://h:1", ""));
    let mut read = read(&jwt).unwrap();
    read.ctrls = (0..100).map(|port| format!("https://h:{}", 1 + port % 3)).collect();
    let ports: Vec<u16> = addresses(&read).unwrap().iter().map(|address| address.port).collect();
    assert_eq!(ports, [1, 2, 3]);
    read.ctrls.push("http://h:1".into());
    assert!(addresses(&read).is_ok(), "what is not looked at does no harm");
    read.ctrls = vec!["http://h:1".into()];
    assert!(addresses(&read).is_err());
}

struct Chain {
    leaf: CertificateDer<'static>,
    root: CertificateDer<'static>,
}

fn chain() -> Chain {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let leaf = CertificateParams::new(vec!["gw.example".into()]).unwrap();
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
    Chain { leaf, root }
}

#[test]
fn the_gateway_is_known_by_the_last_certificate_of_its_chain_and_by_its_name() {
    let (ours, theirs) = (chain(), chain());
    let pin_of = |certificate: &CertificateDer<'_>| -> [u8; 32] {
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate).as_ref().try_into().unwrap()
    };
    let check =
        |pinned: &CertificateDer<'_>, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name| {
            let verifier = Arc::new(pinned::Pinned(pin_of(pinned)));
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).map(drop)
        };
    let root = std::slice::from_ref(&ours.root);
    assert!(check(&ours.root, &ours.leaf, root, "gw.example").is_ok());
    assert!(check(&ours.leaf, &ours.leaf, &[], "gw.example").is_ok());
    assert!(check(&ours.leaf, &ours.leaf, &[], "other.example").is_err());
    assert!(check(&ours.root, &ours.leaf, root, "other.example").is_err());
    assert!(check(&ours.root, &ours.leaf, &[], "gw.example").is_err(), "the pinned one is not shown");
    assert!(
        check(&ours.root, &theirs.leaf, root, "gw.example").is_err(),
        "shown, but it did not sign the leaf"
    );
    let error =
        check(&ours.root, &theirs.leaf, std::slice::from_ref(&theirs.root), "gw.example").unwrap_err();
    assert!(pinned::is_another(&std::io::Error::other(error)));
    let both = [theirs.root.clone(), ours.root.clone()];
    assert!(check(&ours.root, &theirs.leaf, &both, "gw.example").is_err(), "only the last one is an anchor");
}

#[test]
fn pins_are_64_hexadecimal_digits() {
    assert_eq!(pinned::parse(&"0f".repeat(32)), Some([15; 32]));
    assert_eq!(pinned::parse(&"0F".repeat(32)), Some([15; 32]));
    for text in ["", "0f", &"0f".repeat(33), &"0g".repeat(32), &"0".repeat(63)] {
        assert_eq!(pinned::parse(text), None, "{text}");
    }
}

#[test]
fn what_a_stranger_answers_is_short_and_has_no_control_characters() {
    let said = |body: &str| {
        call::said(&Answer { status: StatusCode::FORBIDDEN, body: body.to_owned().into(), chain: Vec::new() })
    };
    assert_eq!(said(r#"{"error":{"code":"x","message":"no","next":"ask"}}"#), "no; ask");
    assert_eq!(said(r#"{"error":{"message":"a\u001b[31mb"}}"#), "a[31mb");
    assert!(said(&"x".repeat(10_000)).len() < 300);
    assert_eq!(said(""), "403 Forbidden");
}
