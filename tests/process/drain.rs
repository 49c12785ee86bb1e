//! The end of a process: what is open may finish, what cannot wait is cut, and the exit code says which.

use std::io::{self, Read as _};

use rustix::process::Signal;

use crate::support::http::{Connection, Head, Request};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{Agent, Gateway, GatewayFile, World};

/// A tunnel with one response that has begun and waits for its second half.
struct Open {
    _world: World,
    upstream: Upstream,
    gateway: Gateway,
    agent: Agent,
    connection: Connection,
    head: Head,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Gateway,
    Agent,
}

const ROLES: [Role; 2] = [Role::Gateway, Role::Agent];

impl Open {
    fn with_drain_timeout(timeout: &str) -> Self {
        let (world, upstream) = (World::new(), Upstream::start());
        let more = format!("drain_timeout: {timeout}\n");
        // A request that no agent will take is refused at once.
        let at_once = format!("{more}limits: {{agent_wait: 0s}}\n");
        let gateway = world.gateway(GatewayFile { http: None, more: &at_once });
        let agent = world.agent(&gateway, &[("*", &upstream.url())], &more);
        let mut connection = Connection::open(gateway.public(), SOON).unwrap();
        connection.send(&Request::get("slow", "/slow")).unwrap();
        let head = connection.head().unwrap();
        Self { _world: world, upstream, gateway, agent, connection, head }
    }

    fn process(&mut self, role: Role) -> &mut Process {
        match role {
            Role::Gateway => &mut self.gateway.process,
            Role::Agent => &mut self.agent.process,
        }
    }

    /// Sends a signal and waits until the process says that it drains.
    fn drain(&mut self, role: Role, signal: Signal) {
        let process = self.process(role);
        process.signal(signal);
        process.line(&["draining"]);
    }

    /// What the client gets of the open response.
    fn rest(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.connection.within(SOON).body(&self.head).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Whether a new connection to the public port is taken.
    fn is_open(&self) -> bool {
        std::net::TcpStream::connect(self.gateway.public()).is_ok()
    }
}

#[test]
fn an_open_response_finishes_before_either_role_ends_with_0() {
    for role in ROLES {
        for signal in [Signal::TERM, Signal::INT] {
            let mut open = Open::with_drain_timeout("20s");
            open.drain(role, signal);
            match role {
                Role::Gateway => until("the public port is closed", SOON, || {
                    if open.is_open() { Err("it is open".to_owned()) } else { Ok(()) }
                }),
                Role::Agent => {
                    // The gateway has no other agent, and says whose move it is.
                    until("new requests are refused", SOON, || {
                        let said = crate::support::http::once(
                            open.gateway.public(),
                            &Request::get("slow", "/hello"),
                        );
                        let said = said.map_err(|error| error.to_string())?;
                        if said.status == 503 { Ok(()) } else { Err(format!("{said:?}")) }
                    });
                }
            }
            assert!(open.process(role).ended().is_none(), "{role:?} did not wait for the response");
            open.upstream.release(1);
            assert_eq!(open.rest().unwrap(), "first last\n", "{role:?} {signal:?}");
            // The client's connection is still open; it must not hold up the end.
            assert_eq!(open.process(role).exit_code(SOON), 0, "{role:?} {signal:?}");
        }
    }
}

#[test]
fn a_response_that_outlasts_the_drain_timeout_is_cut_and_the_exit_code_is_3() {
    for role in ROLES {
        let mut open = Open::with_drain_timeout("300ms");
        open.drain(role, Signal::TERM);
        assert_eq!(open.process(role).exit_code(SOON), 3, "{role:?}");
        let rest = open.rest();
        let kind = rest.as_ref().err().map(io::Error::kind);
        let is_cut = matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset));
        assert!(is_cut, "{role:?}: the client must see that the response is incomplete: {rest:?}");
    }
}

#[test]
fn a_second_signal_ends_either_role_at_once() {
    for role in ROLES {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut open = Open::with_drain_timeout("60s");
            open.drain(role, signal);
            open.process(role).signal(signal);
            assert_eq!(open.process(role).exit_code(SOON), code, "{role:?} {signal:?}");
            assert!(open.rest().is_err());
        }
    }
}

#[test]
fn idle_roles_end_at_once_with_0() {
    let world = World::new();
    let mut gateway = world.gateway(GatewayFile::default());
    let mut agent = world.agent(&gateway, &[("*", "http_status:204")], "");
    // Carried once, so that there are connections and streams to let go.
    let mut kept = Connection::open(gateway.public(), SOON).unwrap();
    assert_eq!(kept.exchange(&Request::get("x", "/")).unwrap().status, 204);
    agent.process.signal(Signal::TERM);
    assert_eq!(agent.process.exit_code(SOON), 0);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.exit_code(SOON), 0);
}

#[test]
fn an_agent_lets_go_of_an_upstream_that_stays_silent_when_the_gateway_has_gone() {
    use std::io::Write as _;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = Head::read(&mut io::BufReader::new(stream.try_clone().unwrap())).unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        // It neither closes nor says anything when its input ends; only the agent can end this connection.
        (head.is_some(), stream)
    });
    let world = World::new();
    let mut gateway = world.gateway(GatewayFile::default());
    let mut agent = world.agent(&gateway, &[("*", &url)], "");
    let response = crate::support::http::once(gateway.public(), &Request::get("x", "/")).unwrap();
    assert_eq!(response.status, 204);
    let (was_asked, _open) = silent.join().unwrap();
    assert!(was_asked);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.exit_code(SOON), 0);
    until("no stream is left", SOON, || match agent.scrape().sum("adit_agent_streams", &[]) {
        streams if streams < 0.5 => Ok(()),
        streams => Err(format!("{streams} streams")),
    });
    agent.process.signal(Signal::TERM);
    assert_eq!(agent.process.exit_code(SOON), 0);
}

#[test]
fn an_agent_whose_gateway_has_gone_ends_with_0() {
    let (world, upstream) = (World::new(), Upstream::start());
    let mut gateway = world.gateway(GatewayFile::default());
    let mut agent = world.agent(&gateway, &[("*", &upstream.url())], "");
    let mut kept = Connection::open(gateway.public(), SOON).unwrap();
    assert_eq!(kept.exchange(&Request::get("x", "/hello")).unwrap().status, 200);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.exit_code(SOON), 0);
    agent.process.line(&["session ended"]);
    agent.process.signal(Signal::TERM);
    assert_eq!(agent.process.exit_code(SOON), 0);
}
