//! A proxy on the way out of an agent's network: small, real, and as unhelpful as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_tunnel::scope::Scope;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a proxy does with those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Connects them.
    Connects,
    /// Connects those who log in with this user and password.
    AsksFor(&'static str, &'static str),
    /// Refuses with this status (HTTP) or code (SOCKS5).
    Refuses(u16),
    /// Takes the request and says nothing.
    Hangs,
    /// Answers these bytes to the first ones it reads, and closes.
    Says(&'static [u8]),
    /// Connects them nowhere; these bytes come right behind its consent.
    SpeaksFor(&'static [u8]),
}

/// A running proxy. It speaks both HTTP and SOCKS5, resolves every name to this machine, and ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    /// The connections of now; replaced when they are cut.
    connections: Arc<Mutex<Scope>>,
    scope: Scope,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Proxy {
    /// Starts it.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scope = Scope::new();
        let proxy = Self {
            addr: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::new(Mutex::new(scope.child())),
            scope,
        };
        let (asked, connections) = (Arc::clone(&proxy.asked), Arc::clone(&proxy.connections));
        proxy.scope.spawn("proxy", async move {
            while let Ok((client, _)) = listener.accept().await {
                let asked = Arc::clone(&asked);
                connections.lock().spawn("proxied", async move {
                    // Who breaks off has had what he wanted.
                    let _broken = serve(client, manner, &asked).await;
                });
            }
        });
        proxy
    }

    /// Its URL: `http` or `socks5`, with whatever login the test gives.
    #[must_use]
    pub fn url(&self, scheme: &str, login: &str) -> String {
        let at = if login.is_empty() { "" } else { "@" };
        format!("{scheme}://{login}{at}{}", self.addr)
    }

    /// Ends every connection of now. New ones are served.
    pub fn cut(&self) {
        let next = self.scope.child();
        std::mem::replace(&mut *self.connections.lock(), next).cancel();
    }

    /// The `host:port` of every request so far, as it was asked for.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn serve(mut client: TcpStream, manner: Manner, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut first = [0];
    client.peek(&mut first).await?;
    if let Manner::Says(bytes) = manner {
        client.write_all(bytes).await?;
        return client.shutdown().await;
    }
    let target = if first == [5] {
        socks(&mut client, manner, asked).await?
    } else {
        connect(&mut client, manner, asked).await?
    };
    if let Some(port) = target {
        let mut gateway = TcpStream::connect(("127.0.0.1", port)).await?;
        splice(&mut client, &mut gateway).await;
    }
    Ok(())
}

fn port_of(target: &str) -> u16 {
    target.rsplit_once(':').unwrap().1.parse().unwrap()
}

async fn hang(client: &mut TcpStream) -> std::io::Result<()> {
    let mut ignored = [0; 256];
    while client.read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn connect(
    client: &mut TcpStream,
    manner: Manner,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<Option<u16>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
    asked.lock().push(target.clone());
    let status: &[u8] = match manner {
        Manner::Hangs => return hang(client).await.map(|()| None),
        Manner::Refuses(status) => {
            client.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
            return Ok(None);
        }
        Manner::AsksFor(user, password) if !head.contains(&basic(user, password)) => {
            client.write_all(b"HTTP/1.1 407 Login\r\nproxy-authenticate: Basic realm=\"x\"\r\n\r\n").await?;
            return Ok(None);
        }
        Manner::SpeaksFor(bytes) => {
            let answer =
                [&b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n"[..], bytes].concat();
            client.write_all(&answer).await?;
            return hang(client).await.map(|()| None);
        }
        Manner::Connects | Manner::AsksFor(..) | Manner::Says(_) => b"HTTP/1.1 200 OK\r\n\r\n",
    };
    client.write_all(status).await?;
    Ok(Some(port_of(&target)))
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("\r\nProxy-Authorization: Basic {login}\r\n")
}

async fn socks(
    client: &mut TcpStream,
    manner: Manner,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<Option<u16>> {
    let _version = client.read_u8().await?;
    let methods = bytes(client).await?;
    if let Manner::AsksFor(user, password) = manner {
        if !methods.contains(&2) {
            client.write_all(&[5, 0xff]).await?;
            return Ok(None);
        }
        client.write_all(&[5, 2]).await?;
        let _version = client.read_u8().await?;
        let given = (bytes(client).await?, bytes(client).await?);
        let right = given == (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(None);
        }
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let host = match request {
        [5, 1, 0, 1] => {
            let mut ip = [0; 4];
            client.read_exact(&mut ip).await?;
            std::net::Ipv4Addr::from(ip).to_string()
        }
        [5, 1, 0, 3] => String::from_utf8(bytes(client).await?).unwrap(),
        other => panic!("not a request: {other:?}"),
    };
    let port = client.read_u16().await?;
    asked.lock().push(format!("{host}:{port}"));
    match manner {
        Manner::Hangs => return hang(client).await.map(|()| None),
        Manner::Refuses(code) => {
            client.write_all(&[5, u8::try_from(code).unwrap(), 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            return Ok(None);
        }
        Manner::SpeaksFor(bytes) => {
            client.write_all(&[b"\x05\0\0\x03\x02gw\x01\x02", bytes].concat()).await?;
            return hang(client).await.map(|()| None);
        }
        Manner::Connects | Manner::AsksFor(..) | Manner::Says(_) => {}
    }
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 1, 2]).await?;
    Ok(Some(port))
}

/// A length in one byte, and so many bytes.
async fn bytes(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn splice(a: &mut TcpStream, b: &mut TcpStream) {
    let (mut a_reads, mut a_writes) = a.split();
    let (mut b_reads, mut b_writes) = b.split();
    tokio::join!(pump(&mut a_reads, &mut b_writes), pump(&mut b_reads, &mut a_writes));
}

async fn pump<R, W>(from: &mut R, to: &mut W)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}
