//! What is believed of an answer, and what is not.

use adit_tunnel::proof::EXPORTER_LEN;

use super::*;
use crate::token::Source;

const EXPORTER: Exporter = [7; EXPORTER_LEN];

fn token() -> Token {
    Source::Argument(adit_telemetry::secret::Secret::new("s3cret".into()).unwrap()).read().unwrap()
}

fn target(url: &str, verify: Verify) -> Target {
    let credential = Credential::Token(token());
    Target { url: url.parse().unwrap(), egress: Egress::direct(), verify, credential }
}

fn answered(token_of_answerer: Option<&[u8]>, status: StatusCode) -> Answer {
    let body = Bytes::from_static(b"{}");
    let mut headers = HeaderMap::new();
    if let Some(text) = token_of_answerer {
        let proof = hex(&TokenKey::new(text).prove(Prover::Answerer, &EXPORTER, &body));
        headers.insert(PROOF, proof.parse().unwrap());
    }
    Answer { status, headers, body }
}

#[test]
fn only_an_answer_from_somebody_who_knows_the_token_is_believed() {
    let believed = |text| is_proven(&token().key(), &EXPORTER, &answered(text, StatusCode::OK));
    assert!(believed(Some(b"s3cret")));
    assert!(!believed(Some(b"other")));
    assert!(!believed(None));
}

#[test]
fn refusals_name_the_token_by_its_source_and_never_by_its_text() {
    let client = Client::new(target("wss://gateway.example", Verify::TokenProof));
    let judged = |status| client.judge(&answered(None, status)).unwrap_err().to_string();
    let error = judged(StatusCode::UNAUTHORIZED);
    assert!(error.contains("refuses the token from --token") && !error.contains("s3cret"), "{error}");
    assert!(judged(StatusCode::NOT_FOUND).contains("not a public one"));
    assert!(judged(StatusCode::TOO_MANY_REQUESTS).contains("is let in all the same"));
}

#[test]
fn what_a_gateway_says_of_a_missing_right_is_passed_on() {
    let client = Client::new(target("wss://gateway.example", Verify::TokenProof));
    let body = Bytes::from_static(b"token prometheus may not read /status: that takes the admin right\n");
    let error =
        client.judge(&Answer { body, ..answered(None, StatusCode::FORBIDDEN) }).unwrap_err().to_string();
    assert!(
        error.contains("may not read /status: that takes the admin right\n next: use another"),
        "{error}"
    );
    let answer = answered(None, StatusCode::FORBIDDEN);
    let error = client.judge(&answer).unwrap_err().to_string();
    assert!(error.contains("it answered 403"), "{error}");
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

/// Serves one connection until the client is gone, and returns each `METHOD path` with what it said in `Authorization`.
async fn serve_one(listener: tokio::net::TcpListener, gateway: Gateway) -> Vec<(String, String)> {
    use hyper::service::service_fn;

    let (tcp, _) = listener.accept().await.unwrap();
    let stream = tokio_rustls::TlsAcceptor::from(self_signed()).accept(tcp).await.unwrap();
    let mut exporter = tls::exporter(stream.get_ref().1).unwrap();
    if gateway == Gateway::InBetween {
        exporter = [9; EXPORTER_LEN];
    }
    let said = std::cell::RefCell::new(Vec::new());
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        let asked = format!("{} {}", request.method(), request.uri().path());
        let text = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        let key = token().key();
        let proof = text.strip_prefix("Adit-Proof ").and_then(|proof| unhex(proof.as_bytes())).unwrap();
        let known = key.check(Prover::Caller, &exporter, asked.as_bytes(), &proof);
        assert_eq!(known, gateway == Gateway::Honest, "a proof holds on its own channel only");
        said.borrow_mut().push((asked, text));
        let body = "{\"ok\":true}";
        let proof = hex(&key.prove(Prover::Answerer, &exporter, body.as_bytes()));
        let response = http::Response::builder().header(PROOF, proof);
        std::future::ready(response.body(Full::new(Bytes::from_static(body.as_bytes()))))
    });
    // The client may go away before the TLS close is complete.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
    said.into_inner()
}

async fn asked(gateway: Gateway) -> (Result<Bytes, CliError>, Vec<(String, String)>) {
    let (listener, url) = listen().await;
    tokio::join!(get(target(&url, Verify::TokenProof), "/status"), serve_one(listener, gateway))
}

async fn listen() -> (tokio::net::TcpListener, String) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn with_auto_tls_both_sides_prove_the_token_and_nobody_sends_it() {
    let (answer, said) = asked(Gateway::Honest).await;
    assert_eq!(answer.unwrap(), "{\"ok\":true}");
    assert!(said.len() == 1 && !said[0].1.contains("s3cret"), "{said:?}");
}

#[tokio::test]
async fn an_answer_through_somebody_in_between_is_refused() {
    let (answer, _) = asked(Gateway::InBetween).await;
    assert!(answer.unwrap_err().to_string().contains("missing or wrong"));
}

#[tokio::test]
async fn without_auto_tls_an_unknown_certificate_ends_it_before_the_token_is_sent() {
    let (listener, url) = listen().await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let handshake = async {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio_rustls::TlsAcceptor::from(self_signed()).accept(tcp).await.map(drop)
    };
    let (answer, handshake) = tokio::join!(get(target(&url, Verify::Ca(ca)), "/status"), handshake);
    assert!(answer.unwrap_err().to_string().contains("no TLS session"));
    assert!(handshake.is_err(), "the client leaves before it says anything");
}

/// Asks for two changes on one client.
async fn changed(gateway: Gateway) -> (Result<Answer, CliError>, Vec<(String, String)>) {
    let (listener, url) = listen().await;
    let change = async {
        let mut client = Client::new(target(&url, Verify::TokenProof));
        let question =
            Question { body: Some(Bytes::from_static(b"{}")), ..Question::new(Method::POST, "/v1/services") };
        client.ask(question.clone()).await?;
        client.ask(question).await
    };
    tokio::join!(change, serve_one(listener, gateway))
}

#[tokio::test]
async fn a_body_leaves_only_after_the_gateway_has_proven_itself_on_the_same_connection() {
    let (answer, said) = changed(Gateway::Honest).await;
    assert_eq!(answer.unwrap().status, StatusCode::OK);
    let asked: Vec<&str> = said.iter().map(|(asked, _)| asked.as_str()).collect();
    assert_eq!(asked, ["GET /v1/whoami", "POST /v1/services", "POST /v1/services"]);
    let (answer, said) = changed(Gateway::InBetween).await;
    assert!(answer.unwrap_err().to_string().contains("missing or wrong"));
    assert_eq!(said.len(), 1, "nothing but the question: {said:?}");
}
