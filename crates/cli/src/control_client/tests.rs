//! What is believed of an answer, and what is not.

use adit_tunnel::proof::EXPORTER_LEN;

use super::*;
use crate::token::Source;

const EXPORTER: Exporter = [7; EXPORTER_LEN];

fn token() -> Token {
    Source::Argument(adit_telemetry::secret::Secret::new("s3cret".into()).unwrap()).read().unwrap()
}

fn judged(token_of_answerer: Option<&[u8]>, status: StatusCode) -> Result<Bytes, String> {
    let token = token();
    let channel = Channel { exporter: EXPORTER, key: token.key() };
    let body = Bytes::from_static(b"{}");
    let mut headers = HeaderMap::new();
    if let Some(text) = token_of_answerer {
        let proof = hex(&TokenKey::new(text).prove(Prover::Answerer, &EXPORTER, &body));
        headers.insert(PROOF, proof.parse().unwrap());
    }
    let url = "wss://gateway.example".parse().unwrap();
    judge(&url, &token, Some(&channel), status, &headers, body).map_err(|error| error.to_string())
}

#[test]
fn only_an_answer_from_somebody_who_knows_the_token_is_believed() {
    assert_eq!(judged(Some(b"s3cret"), StatusCode::OK).unwrap(), "{}");
    assert!(judged(Some(b"other"), StatusCode::OK).unwrap_err().contains("missing or wrong"));
    assert!(judged(None, StatusCode::OK).unwrap_err().contains("missing or wrong"));
}

#[test]
fn refusals_name_the_token_by_its_source_and_never_by_its_text() {
    let error = judged(None, StatusCode::UNAUTHORIZED).unwrap_err();
    assert!(error.contains("refuses the token from --token") && !error.contains("s3cret"), "{error}");
    assert!(judged(None, StatusCode::NOT_FOUND).unwrap_err().contains("not a public one"));
    assert!(judged(None, StatusCode::TOO_MANY_REQUESTS).unwrap_err().contains("wait a minute"));
}

#[test]
fn hexadecimal_reads_back_and_refuses_the_rest() {
    assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    assert_eq!(unhex(b"00ABff"), Some(vec![0, 0xab, 0xff]));
    assert_eq!(unhex(b"0"), None);
    assert_eq!(unhex(b"0x"), None);
}

/// How a gateway in a test behaves.
#[derive(Clone, Copy, PartialEq)]
enum Gateway {
    /// Knows the token.
    Honest,
    /// Passes requests on to an honest gateway over a channel of its own.
    InBetween,
}

/// TLS with a certificate that nobody knows.
fn self_signed() -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Serves one connection and returns what the client said in `Authorization`.
async fn serve_one(listener: tokio::net::TcpListener, gateway: Gateway) -> String {
    use hyper::service::service_fn;

    let (tcp, _) = listener.accept().await.unwrap();
    let stream = tokio_rustls::TlsAcceptor::from(self_signed()).accept(tcp).await.unwrap();
    let mut exporter = tls::exporter(stream.get_ref().1).unwrap();
    if gateway == Gateway::InBetween {
        exporter = [9; EXPORTER_LEN];
    }
    let said = std::cell::RefCell::new(String::new());
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        assert_eq!((request.method().as_str(), request.uri().path()), ("GET", "/status"));
        let text = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        let key = token().key();
        let proof = text.strip_prefix("Adit-Proof ").and_then(|proof| unhex(proof.as_bytes())).unwrap();
        let known = key.check(Prover::Caller, &exporter, b"GET /status", &proof);
        assert_eq!(known, gateway == Gateway::Honest, "a proof holds on its own channel only");
        said.replace(text);
        let body = "{\"ok\":true}";
        let proof = hex(&key.prove(Prover::Answerer, &exporter, body.as_bytes()));
        let response = http::Response::builder().header(PROOF, proof).header(header::CONNECTION, "close");
        std::future::ready(response.body(http_body_util::Full::new(Bytes::from_static(body.as_bytes()))))
    });
    // The client may go away before the TLS close is complete.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
    said.into_inner()
}

async fn asked(gateway: Gateway) -> (Result<Bytes, CliError>, String) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap()).parse().unwrap();
    let token = token();
    let egress = Egress::direct();
    tokio::join!(get(&url, &egress, &Verify::TokenProof, &token, "/status"), serve_one(listener, gateway))
}

#[tokio::test]
async fn with_auto_tls_both_sides_prove_the_token_and_nobody_sends_it() {
    let (answer, said) = asked(Gateway::Honest).await;
    assert_eq!(answer.unwrap(), "{\"ok\":true}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn an_answer_through_somebody_in_between_is_refused() {
    let (answer, _) = asked(Gateway::InBetween).await;
    assert!(answer.unwrap_err().to_string().contains("missing or wrong"));
}

#[tokio::test]
async fn without_auto_tls_an_unknown_certificate_ends_it_before_the_token_is_sent() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap()).parse().unwrap();
    let token = token();
    let verify = Verify::Ca(ca);
    let egress = Egress::direct();
    let handshake = async {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(self_signed()).accept(tcp).await.map(drop)
    };
    let (answer, handshake) = tokio::join!(get(&url, &egress, &verify, &token, "/status"), handshake);
    assert!(answer.unwrap_err().to_string().contains("no TLS session"));
    assert!(handshake.is_err(), "the client leaves before it says anything");
}
