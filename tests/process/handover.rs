//! Restarting without a failed request: sockets that outlive the process, and agents that are told in time.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::Signal;

use crate::support::http::{Connection, Request};
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::World;

/// Clients that go on asking, some on one connection, some on a new one each time.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    /// The gateway that gets no new connection, as behind a balancer; none when beyond the list.
    spared: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(gateways: &[SocketAddr]) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            served: Arc::default(),
            failed: Arc::default(),
            spared: Arc::new(AtomicUsize::new(gateways.len())),
            threads: Vec::new(),
        };
        for number in 0..6 {
            let (stop, served, failed) =
                (Arc::clone(&load.stop), Arc::clone(&load.served), Arc::clone(&load.failed));
            let (gateways, spared) = (gateways.to_vec(), Arc::clone(&load.spared));
            load.threads.push(std::thread::spawn(move || {
                let mut client = Client { gateways, spared, at: number, kept: None, keeps: number % 2 == 0 };
                while !stop.load(Ordering::SeqCst) {
                    match client.ask(number % 3 == 0) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        Err(what) => failed.lock().push(what),
                    }
                }
            }));
        }
        load
    }

    /// Waits until so many more requests were served.
    #[track_caller]
    fn goes_on(&self, count: usize) {
        let target = self.served.load(Ordering::SeqCst) + count;
        until("requests go on", SOON, || match self.served.load(Ordering::SeqCst) {
            now if now >= target => Ok(()),
            now => Err(format!("{now} of {target} requests; failed: {:?}", self.failed.lock())),
        });
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let (served, failed) = (self.served.load(Ordering::SeqCst), self.failed.lock());
        assert!(failed.is_empty(), "{} of {served} requests failed: {failed:#?}", failed.len());
    }
}

/// Behaves as clients do: it sends again what met the end of a connection that it had kept, and nothing else.
struct Client {
    gateways: Vec<SocketAddr>,
    spared: Arc<AtomicUsize>,
    at: usize,
    keeps: bool,
    kept: Option<Connection>,
}

impl Client {
    fn ask(&mut self, post: bool) -> Result<(), String> {
        let request = if post { Request::post("a", "/echo", b"hello") } else { Request::get("a", "/hello") };
        if let Some(mut kept) = self.kept.take()
            && let Some(outcome) = finish(kept.within(SOON).exchange(&request), true)?
        {
            self.kept = (self.keeps && !outcome).then_some(kept);
            return Ok(());
        }
        let mut fresh = self.connect()?;
        let closes = finish(fresh.within(SOON).exchange(&request), false)?.unwrap_or(true);
        self.kept = (self.keeps && !closes).then_some(fresh);
        Ok(())
    }

    fn connect(&mut self) -> Result<Connection, String> {
        let spared = self.spared.load(Ordering::SeqCst);
        let mut turn = (1..=self.gateways.len()).map(|step| (self.at + step) % self.gateways.len());
        self.at = turn.find(|at| *at != spared).unwrap_or(0);
        let gateway = self.gateways[self.at];
        Connection::open(gateway, SOON).map_err(|error| format!("{gateway} refused a connection: {error}"))
    }
}

/// Whether the connection ends after this response; `None` when a kept one had ended before the request came.
fn finish(
    outcome: io::Result<crate::support::http::Response>,
    was_kept: bool,
) -> Result<Option<bool>, String> {
    match outcome {
        Ok(response) if response.status == 200 => Ok(Some(response.head.closes())),
        Ok(response) => Err(format!("{} {}", response.head.first, response.text())),
        Err(error)
            if was_kept
                && !error.to_string().contains("was cut")
                && matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The sockets of a gateway, kept by the test as a supervisor keeps them.
struct Sockets {
    control: SocketAddr,
    http: SocketAddr,
    first: i32,
    _kept: [OwnedFd; 2],
}

impl Sockets {
    fn bind() -> Self {
        let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [control, http] = [0, 1].map(|at: usize| bound[at].local_addr().unwrap());
        // The next free numbers from here on; another test may have taken one in between.
        for first in (300..900).step_by(10) {
            let kept = [0, 1].map(|at| fcntl_dupfd_cloexec(&bound[at], first).unwrap());
            if kept[1].as_raw_fd() == kept[0].as_raw_fd() + 1 {
                for fd in &kept {
                    fcntl_setfd(fd, FdFlags::empty()).unwrap();
                }
                return Self { control, http, first: kept[0].as_raw_fd(), _kept: kept };
            }
        }
        panic!("no two neighbouring descriptors are free");
    }

    fn gateway(&self, world: &World) -> Process {
        let text = format!(
            "control: {{listen: '{}'}}\nhttp: [{{listen: '{}'}}]\ntokens: [{{name: default, token: 'file:token'}}]\n",
            self.control, self.http
        );
        let path = world.write("gateway.yaml", &text);
        let mut command = world.adit(&["gateway", "-f"]);
        command.arg(path).env("LISTEN_FDS", "2").env("LISTEN_FDS_FIRST_FD", self.first.to_string());
        let mut process = Process::start("gateway", &mut command);
        process.line(&["listening", "purpose=\"http\""]);
        process
    }
}

#[test]
fn a_gateway_that_is_handed_its_sockets_is_replaced_under_load_without_a_failed_request() {
    let (world, upstream, sockets) = (World::new(), Upstream::start(), Sockets::bind());
    let mut gateway = sockets.gateway(&world);
    let agent = world.lone_agent(sockets.control, &[("*", &upstream.url())], "");
    until("the agent is ready", SOON, || crate::support::http::text(agent.listen, "agent", "/ready"));
    let load = Load::start(&[sockets.http]);
    for beside in [true, false, true] {
        load.goes_on(200);
        if beside {
            // The next process serves while the old one finishes; state is let go of first.
            gateway.signal(Signal::TERM);
            let next = sockets.gateway(&world);
            assert_eq!(gateway.exit_code(SOON), 0);
            gateway = next;
        } else {
            // What comes between the two waits in the sockets.
            gateway.signal(Signal::TERM);
            assert_eq!(gateway.exit_code(SOON), 0);
            gateway = sockets.gateway(&world);
        }
    }
    load.goes_on(200);
    load.end();
}

#[test]
fn a_socket_that_nothing_is_configured_for_stops_the_start() {
    let (world, sockets) = (World::new(), Sockets::bind());
    let text = format!(
        "control: {{listen: '{}'}}\nhttp: [{{listen: '127.0.0.1:0'}}]\ntokens: [{{name: default, token: 'file:token'}}]\n",
        sockets.control
    );
    let path = world.write("gateway.yaml", &text);
    let mut command = world.adit(&["gateway", "-f"]);
    command.arg(path).env("LISTEN_FDS", "2").env("LISTEN_FDS_FIRST_FD", sockets.first.to_string());
    let mut process = Process::start("gateway", &mut command);
    assert_eq!(process.exit_code(SOON), 1);
    let said = process.stderr();
    assert!(said.contains(&sockets.http.to_string()) && said.contains("no listener is configured"), "{said}");
}

#[test]
fn gateways_and_agents_are_restarted_one_after_the_other_under_load_without_a_failed_request() {
    let (world, upstream) = (World::new(), Upstream::start());
    let file = crate::support::world::GatewayFile::default();
    // Each with a state directory of its own.
    let worlds = [world.another(), world.another()];
    let mut gateways = worlds.each_ref().map(|world| world.lasting_gateway(file));
    let urls = gateways.each_ref().map(|gateway| format!("wss://{}", gateway.control));
    let agent = || {
        let mut agent = world.agent_of(&urls, &[("*", &upstream.url())]);
        for _ in &urls {
            agent.process.line(&["session opened"]);
        }
        until("both sessions stand", SOON, || {
            match crate::support::http::text(agent.listen, "agent", "/ready")? {
                text if text.matches(": connected").count() == 2 => Ok(()),
                text => Err(text),
            }
        });
        agent
    };
    let mut agents = [agent(), agent()];
    let load = Load::start(&gateways.each_ref().map(|gateway| gateway.public()));
    for round in 0..2 {
        load.goes_on(200);
        let next = agent();
        let mut old = std::mem::replace(&mut agents[round], next);
        old.process.signal(Signal::TERM);
        assert_eq!(old.process.exit_code(SOON), 0);

        // The balancer in front takes it out first: between two processes nobody listens.
        load.spared.store(round, Ordering::SeqCst);
        load.goes_on(200);
        gateways[round].process.signal(Signal::TERM);
        assert_eq!(gateways[round].process.exit_code(SOON), 0);
        gateways[round] = worlds[round].again(&gateways[round], file);
        for agent in &agents {
            until("the agent is back", SOON, || {
                match crate::support::http::text(agent.listen, "agent", "/ready")? {
                    text if text.matches(": connected").count() == 2 => Ok(()),
                    text => Err(text),
                }
            });
        }
        load.spared.store(gateways.len(), Ordering::SeqCst);
    }
    load.goes_on(200);
    load.end();
}
