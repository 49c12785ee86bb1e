//! Enrollment tokens: what is accepted, and every way to be refused.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{EncodingKey, encode};

use super::*;

const NOW: Timestamp = 1_800_000_000;
const ISSUER: &str = "https://gw.example:8123";

fn authority() -> Authority {
    Authority::in_memory(Some("example.org"), NOW).unwrap()
}

fn claims(authority: &Authority) -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: "My.Phone".into(),
        aud: authority.audience(),
        exp: NOW + 600,
        iat: NOW,
        jti: "one".into(),
        em: "ott".into(),
        ctrls: vec!["https://gw2.example:8123".into()],
        ca: "00".repeat(32),
    }
}

#[test]
fn an_invitation_says_who_where_until_when_and_whom_to_trust() {
    let authority = authority();
    let invite = Invite {
        issuer: ISSUER.into(),
        identity: "My.Phone".parse().unwrap(),
        jti: "one".into(),
        expires_at: NOW + 600,
        controllers: vec!["https://gw2.example:8123".into()],
        pin: "00".repeat(32),
    };
    let jwt = authority.invite(&invite, NOW).unwrap();
    assert_eq!(authority.verify(&jwt, ISSUER, NOW), Ok(claims(&authority)));
}

#[test]
fn a_token_with_one_wrong_claim_is_refused_with_its_own_reason() {
    let authority = authority();
    type Change = fn(&mut Claims);
    let table: [(&str, Change, EnrollmentError); 9] = [
        ("expired beyond skew", |claims| claims.exp = NOW - 60, EnrollmentError::Expired),
        ("made in the future", |claims| claims.iat = NOW + 61, EnrollmentError::NotYet),
        ("another issuer", |claims| claims.iss = "https://evil.example".into(), EnrollmentError::Issuer),
        ("issuer with a slash more", |claims| claims.iss.push('/'), EnrollmentError::Issuer),
        (
            "another audience",
            |claims| claims.aud = "spiffe://other/enrollment".into(),
            EnrollmentError::Audience,
        ),
        ("another method", |claims| claims.em = "ottca".into(), EnrollmentError::Method),
        ("no method", |claims| claims.em = String::new(), EnrollmentError::Method),
        ("no name", |claims| claims.sub = "a b".into(), EnrollmentError::Malformed),
        ("no jti", |claims| claims.jti = String::new(), EnrollmentError::Malformed),
    ];
    for (what, change, error) in table {
        let mut claims = claims(&authority);
        change(&mut claims);
        let jwt = authority.sign(&claims).unwrap();
        assert_eq!(authority.verify(&jwt, ISSUER, NOW), Err(error), "{what}");
    }
}

#[test]
fn clocks_may_be_a_minute_apart() {
    let authority = authority();
    let jwt = authority.sign(&Claims { exp: NOW - 59, iat: NOW - 600, ..claims(&authority) }).unwrap();
    assert!(authority.verify(&jwt, ISSUER, NOW).is_ok());
    let jwt = authority.sign(&Claims { iat: NOW + 60, ..claims(&authority) }).unwrap();
    assert!(authority.verify(&jwt, ISSUER, NOW).is_ok());
}

fn forged(header: &str, authority: &Authority, key: &EncodingKey, alg: Algorithm) -> String {
    let claims = claims(authority);
    let genuine = encode(&Header { alg, ..Header::default() }, &claims, key).unwrap();
    let (_, rest) = genuine.split_once('.').unwrap();
    format!("{}.{rest}", BASE64.encode(header))
}

#[test]
fn tokens_signed_otherwise_are_refused() {
    let authority = authority();
    let issuing = authority.issuing();
    let kid = &issuing.key_id;
    let genuine = authority.sign(&claims(&authority)).unwrap();
    let parts: Vec<&str> = genuine.split('.').collect();
    let none = BASE64.encode(format!(r#"{{"alg":"none","kid":"{kid}"}}"#));
    for text in [format!("{none}.{}.", parts[1]), format!("{none}.{}.{}", parts[1], parts[2])] {
        assert_eq!(authority.verify(&text, ISSUER, NOW), Err(EnrollmentError::Algorithm), "{text}");
    }
    // The public key as the secret of an HMAC: who takes the algorithm from the token falls for it.
    let public = rcgen::KeyPair::try_from(issuing_key(&authority).as_slice()).unwrap();
    for secret in [public.public_key_pem().into_bytes(), public.public_key_raw().to_vec()] {
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        let jwt = encode(&header, &claims(&authority), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(authority.verify(&jwt, ISSUER, NOW), Err(EnrollmentError::Algorithm));
        let relabelled = forged(
            &format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#),
            &authority,
            &EncodingKey::from_secret(&secret),
            Algorithm::HS256,
        );
        assert_eq!(authority.verify(&relabelled, ISSUER, NOW), Err(EnrollmentError::Signature));
    }
    // Another authority's, with its own name for the key and with ours.
    let other = Authority::in_memory(Some("example.org"), NOW).unwrap();
    let theirs = other.sign(&claims(&authority)).unwrap();
    assert_eq!(authority.verify(&theirs, ISSUER, NOW), Err(EnrollmentError::UnknownKey));
    let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::ES256) };
    let theirs = encode(&header, &claims(&authority), &other.issuing().signs).unwrap();
    assert_eq!(authority.verify(&theirs, ISSUER, NOW), Err(EnrollmentError::Signature));
    let unnamed = encode(&Header::new(Algorithm::ES256), &claims(&authority), &issuing.signs).unwrap();
    assert_eq!(authority.verify(&unnamed, ISSUER, NOW), Err(EnrollmentError::UnknownKey));
    let critical = Header { crit: Some(vec!["b64".into()]), ..header };
    let critical = encode(&critical, &claims(&authority), &issuing.signs).unwrap();
    assert_eq!(authority.verify(&critical, ISSUER, NOW), Err(EnrollmentError::Malformed));
}

fn issuing_key(authority: &Authority) -> Vec<u8> {
    authority.issuing().signs.as_bytes().to_vec()
}

#[test]
fn a_token_with_one_altered_byte_is_refused() {
    let authority = authority();
    let genuine = authority.sign(&claims(&authority)).unwrap();
    let mut other = claims(&authority);
    other.sub = "admin".into();
    let swapped = authority.sign(&other).unwrap();
    let (a, b): (Vec<&str>, Vec<&str>) = (genuine.split('.').collect(), swapped.split('.').collect());
    let mixed = format!("{}.{}.{}", a[0], b[1], a[2]);
    assert_eq!(authority.verify(&mixed, ISSUER, NOW), Err(EnrollmentError::Signature));
    for at in (0..genuine.len()).step_by(7) {
        let mut bytes = genuine.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        // The last character of a part may hold bits that decode to nothing; the library refuses those as well.
        assert!(authority.verify(&text, ISSUER, NOW).is_err(), "{at}");
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let authority = authority();
    for (text, error) in [
        (String::new(), EnrollmentError::Malformed),
        ("hello".into(), EnrollmentError::Malformed),
        ("a.b".into(), EnrollmentError::Malformed),
        ("a.".repeat(MAX_TOKEN), EnrollmentError::TooLong),
    ] {
        assert_eq!(authority.verify(&text, ISSUER, NOW), Err(error), "{:.20}", text);
    }
    let missing = serde_json::json!({"iss": ISSUER, "sub": "x", "aud": authority.audience(), "exp": NOW + 9});
    let issuing = authority.issuing();
    let header = Header { kid: Some(issuing.key_id.clone()), ..Header::new(Algorithm::ES256) };
    let jwt = encode(&header, &missing, &issuing.signs).unwrap();
    assert_eq!(authority.verify(&jwt, ISSUER, NOW), Err(EnrollmentError::Malformed));
    let twice = serde_json::json!({"iss": [ISSUER, "https://evil.example"], "sub": "x", "aud": [authority.audience(), "x"],
        "exp": NOW + 9, "iat": NOW, "jti": "x", "em": "ott", "ca": ""});
    let jwt = encode(&header, &twice, &issuing.signs).unwrap();
    assert!(authority.verify(&jwt, ISSUER, NOW).is_err());
}
