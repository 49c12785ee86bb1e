//! scratch: bare TCP relay through one session. bare gw PUBLIC CTRL | bare ag CTRL UPSTREAM
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods)]
use adit_proto::header::StreamHeader;
use adit_proto::names::HostPattern;
use adit_proto::reason::Reason;
use adit_tunnel::relay::{Meter, Terms, relay};
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
struct Nobody;
impl Meter for Nobody {
    fn sent(&self, _: u64) {}
    fn received(&self, _: u64) {}
}
const TERMS: Terms = Terms { lost: Reason::UpstreamClosed, patience: None };
#[derive(Debug)]
struct Any(Arc<rustls::crypto::CryptoProvider>);
fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let a: Vec<String> = std::env::args().skip(1).collect();
    let rt = if std::env::var("ONE").is_ok() {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    } else {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
    };
    rt.block_on(async move {
        let scope = Scope::new();
        let header = StreamHeader {
            service: HostPattern::Any.into(),
            client_addr: None,
            connect_timeout: Duration::from_secs(5),
        };
        if a[0] == "gw" {
            let certs: Vec<_> =
                <rustls_pki_types::CertificateDer as rustls_pki_types::pem::PemObject>::pem_file_iter(
                    "cert.pem",
                )
                .unwrap()
                .map(|c| c.unwrap())
                .collect();
            let key = <rustls_pki_types::PrivateKeyDer as rustls_pki_types::pem::PemObject>::from_pem_file(
                "key.pem",
            )
            .unwrap();
            let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
                .with_no_client_auth()
                .with_single_cert(certs, key)
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let control = TcpListener::bind(&a[2]).await.unwrap();
            let public = TcpListener::bind(&a[1]).await.unwrap();
            let (tcp, _) = control.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let mut io = acceptor.accept(adit_tunnel::read_ahead::ReadAhead::new(tcp)).await.unwrap();
            io.get_mut().1.set_buffer_limit(Some(320 * 1024));
            let session = Session::start(io, Side::Gateway, &scope);
            loop {
                let (tcp, _) = public.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let stream = session.open(&header).unwrap();
                scope.spawn("x", async move {
                    relay(stream, tcp, TERMS, &Nobody).await;
                });
            }
        } else {
            let tls = adit_tunnel::tls::session_client(&adit_tunnel::tls::Trust::Anyone, &[]).unwrap();
            let tcp = loop {
                if let Ok(tcp) = TcpStream::connect(&a[1]).await {
                    break tcp;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            tcp.set_nodelay(true).unwrap();
            let mut io = tokio_rustls::TlsConnector::from(tls)
                .connect("localhost".try_into().unwrap(), adit_tunnel::read_ahead::ReadAhead::new(tcp))
                .await
                .unwrap();
            io.get_mut().1.set_buffer_limit(Some(320 * 1024));
            let session = Session::start(io, Side::Agent, &scope);
            let upstream: std::net::SocketAddr = a[2].parse().unwrap();
            while let Some((_, stream)) = session.accept().await {
                scope.spawn("x", async move {
                    let tcp = TcpStream::connect(upstream).await.unwrap();
                    tcp.set_nodelay(true).unwrap();
                    stream.confirm();
                    relay(stream, tcp, TERMS, &Nobody).await;
                });
            }
        }
    });
}
