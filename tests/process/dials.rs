//! `adit dial`: bytes through the real binary, from a pipe and to one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_testkit::tcp::Tcp;
use adit_testkit::{AgentPlan, Rights, ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::process::{self, Process};
use crate::support::wait::{SOON, until};
use crate::support::world::World;

/// A gateway in this process with a service, an identity that may dial it and one that may not.
struct Scene {
    runtime: tokio::runtime::Runtime,
    gateway: Option<adit_testkit::World>,
    folder: World,
    _upstream: Tcp,
}

impl Scene {
    fn new() -> Self {
        let folder = World::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (gateway, upstream) = runtime.block_on(async {
            // Says how much it was told, and then all of it backwards.
            let upstream = Tcp::scripted(|mut tcp| async move {
                let mut all = Vec::new();
                tcp.read_to_end(&mut all).await.unwrap();
                all.reverse();
                tcp.write_all(&all).await.unwrap();
            })
            .await;
            let mut world = adit_testkit::World::new().run().await;
            let mut rights = Rights::new().identity("host").service("reverse").bind("@reverse", "@host");
            let (host, credential) = world.certify("host", now);
            rights = rights.holds("host", credential);
            let (gone, _unknown) = world.certify("gone", now);
            gone.file().save(&folder.path("gone.json")).unwrap();
            for name in ["alice", "mallory"] {
                let (identity, credential) = world.certify(name, now);
                identity.file().save(&folder.path(&format!("{name}.json"))).unwrap();
                rights = rights.identity(name).holds(name, credential);
            }
            world.publish(&rights.dial("@reverse", "@alice").model);
            world.join(AgentPlan::new().identity(&host).offer("@reverse", &upstream)).await;
            (world, upstream)
        });
        Self { runtime, gateway: Some(gateway), folder, _upstream: upstream }
    }

    fn finish(mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.runtime.block_on(gateway.finish());
        }
    }
}

#[test]
fn a_service_is_dialled_like_with_nc_and_what_was_said_comes_back_whole() {
    let scene = Scene::new();
    let sent: String = (0..100_000_u32).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
    let input = scene.folder.write("input", &sent);
    let mut command = scene.folder.adit(&["dial", "Reverse", "--identity", "alice.json"]);
    let said = process::run(command.stdin(File::open(input).unwrap()));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.chars().rev().eq(sent.chars()), "{} bytes came back", said.out.len());
    assert_eq!(said.err, "", "there is nothing to say about it");
    scene.finish();
}

#[test]
fn a_dial_that_is_refused_ends_with_1_and_says_what_may_be_said() {
    let scene = Scene::new();
    let said = scene.folder.run(&["dial", "reverse", "--identity", "mallory.json"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
    assert!(said.err.contains("cannot dial reverse: not_permitted"), "{}", said.err);
    assert!(
        said.err.contains("adit explain dial --identity \"mallory\" --service \"reverse\""),
        "{}",
        said.err
    );
    let said = scene.folder.run(&["dial", "reverse"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("--identity FILE"), "{}", said.err);
    scene.finish();
}

#[test]
fn an_identity_that_is_refused_hears_why_and_not_that_the_gateway_is_unreachable() {
    let scene = Scene::new();
    // A refusal is also a try that came to nothing; which of the two is told must not be left to chance.
    for _ in 0..6 {
        let said = scene.folder.run(&["dial", "reverse", "--identity", "gone.json"]);
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("the gateway refuses the session: "), "{}", said.err);
        assert!(!said.err.contains("check that the address"), "{}", said.err);
    }
    scene.finish();
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_used_and_said() {
    use std::os::unix::fs::PermissionsExt as _;

    let scene = Scene::new();
    let file = scene.folder.path("alice.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = scene.folder.run(&["dial", "reverse", "--identity", "alice.json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("warning: others can read alice.json"), "{}", said.err);
    let args = ["dial", "reverse", "--identity", "alice.json", "--listen", "127.0.0.1:0"];
    let mut dial = Process::start("dial", &mut scene.folder.adit(&args));
    dial.line(&["WARN", "others can read this file", "chmod 600"]);
    scene.finish();
}

#[test]
fn what_cannot_be_reached_is_told_at_once_with_the_reason() {
    let scene = Scene::new();
    let free = ports::free();
    let nobody = format!("wss://127.0.0.1:{free}");
    let public = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = format!("wss://{}", public.local_addr().unwrap());
    let not_tls = std::thread::spawn(move || {
        let (mut tcp, _) = public.accept().unwrap();
        let _whatever = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    for (url, why) in
        [(nobody, "Connection refused"), (plain, "speaks no TLS; is it a gateway's control port")]
    {
        let started = std::time::Instant::now();
        // Far longer than the test may take: it is not waited for.
        let line = ["dial", "reverse", "--identity", "alice.json", "--url", &url, "--timeout", "10m"];
        let said = scene.folder.run(&line);
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("cannot reach the gateway") && said.err.contains(why), "{}", said.err);
        assert!(said.err.contains("next: check that the address is"), "{}", said.err);
        assert!(started.elapsed() < SOON, "{}", said.err);
    }
    not_tls.join().unwrap();
    scene.finish();
}

#[test]
fn an_address_can_stand_for_a_service() {
    let scene = Scene::new();
    let port = ports::free();
    let listen = format!("127.0.0.1:{port}");
    let args = ["dial", "reverse", "--identity", "alice.json", "--listen", &listen];
    let mut dial = Process::start("dial", &mut scene.folder.adit(&args));
    let mut tcp = until("the address is listened on", SOON, || {
        TcpStream::connect(&listen).map_err(|error| error.to_string())
    });
    tcp.write_all(b"stressed").unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    tcp.read_to_string(&mut back).unwrap();
    assert_eq!(back, "desserts");
    dial.signal(rustix::process::Signal::TERM);
    assert_eq!(dial.exit_code(SOON), 0);
    scene.finish();
}
