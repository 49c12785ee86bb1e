//! Requests without a pause while something is done to the processes, and what is left of it afterwards.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::http::{Connection, Request};
use super::wait::{SOON, pause, promised, until};
use super::world::{Agent, Gateway, GatewayFile};

const CLIENTS: usize = 16;
/// More than the gateway lets a request wait for anything; a request that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the tunnel may take to answer again: far more than a step of the backoff.
const RECOVERY: Duration = Duration::from_secs(5);
/// Requests wait only this long for an agent, so that a test sees them refused.
pub(crate) const FILE: GatewayFile<'_> =
    GatewayFile { http: None, more: "limits: {agent_wait: 500ms}\nrequest_log: stdout\n" };

/// How requests have ended so far, by what the client saw.
#[derive(Debug, Default)]
struct Tally {
    ends: Mutex<BTreeMap<String, usize>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    fn good(&self) -> usize {
        self.ends.lock().get("200").copied().unwrap_or(0)
    }

    fn count(&self, end: String) {
        *self.ends.lock().entry(end).or_default() += 1;
    }
}

/// Clients that ask without a pause until they are stopped: half of them on one connection each, half on a new one
/// for each request, GET and POST in turn.
pub(crate) struct Load {
    tally: Arc<Tally>,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(public: SocketAddr) -> Self {
        let (tally, is_over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let clients = (0..CLIENTS)
            .map(|number| {
                let (tally, is_over) = (Arc::clone(&tally), Arc::clone(&is_over));
                std::thread::spawn(move || client(number, public, &tally, &is_over))
            })
            .collect();
        Self { tally, is_over, clients }
    }

    /// Waits until this many more requests were answered with 200, for as long as one follows the other.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: usize) {
        let goal = self.tally.good() + more;
        let mut seen = 0;
        while seen < goal {
            seen = until("requests are answered", SOON, || match self.tally.good() {
                good if good > seen => Ok(good),
                _none_more => Err(format!("{:?}", self.tally)),
            });
        }
    }

    /// Waits until a request has ended in one of these ways.
    #[track_caller]
    pub(crate) fn is_hurt(&self, ways: &[&str]) {
        until("requests fail", SOON, || {
            let is_there = ways.iter().any(|way| self.tally.ends.lock().contains_key(*way));
            if is_there { Ok(()) } else { Err(format!("{:?}", self.tally)) }
        });
    }

    /// Stops the clients and tells how their requests ended.
    #[track_caller]
    pub(crate) fn stop(self) -> BTreeMap<String, usize> {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let faults = self.tally.faults.lock();
        assert!(faults.is_empty(), "{faults:#?}");
        self.tally.ends.lock().clone()
    }
}

fn client(number: usize, public: SocketAddr, tally: &Tally, is_over: &AtomicBool) {
    let keeps = number.is_multiple_of(2);
    let body: Vec<u8> = (0..10_000).map(|at| u8::try_from((at * (number + 1)) % 251).unwrap()).collect();
    let requests = [Request::get("load", "/hello"), Request::post("load", "/echo", &body)];
    let mut kept = None;
    for turn in number / 2.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let request = &requests[turn % 2];
        let started = Instant::now();
        let mut exchange = || -> io::Result<(u16, String, Connection)> {
            let mut connection =
                kept.take().map_or_else(|| Connection::open(public, promised(DEADLINE)), Ok)?;
            let response = connection.within(promised(DEADLINE)).exchange(request)?;
            let reason = response.head.field("adit-reason").unwrap_or_default().to_owned();
            if response.status == 200 && response.body != request.body.unwrap_or(b"hello\n") {
                tally.faults.lock().push(format!("a 200 with another body: {:?}", response.head));
            }
            Ok((response.status, reason, connection))
        };
        match exchange() {
            Ok((status, reason, connection)) => {
                tally.count(format!("{status} {reason}").trim().to_owned());
                if !matches!(status, 200 | 502..=504) {
                    tally.faults.lock().push(format!("{status} {reason} is no answer to an outage"));
                }
                if keeps {
                    kept = Some(connection);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                let took = started.elapsed();
                tally.faults.lock().push(format!("{} hung for {took:?}: {error}", request.method));
            }
            Err(error) => {
                let is_cut = error.to_string().contains("was cut");
                tally.count(if is_cut { "cut".to_owned() } else { format!("{:?}", error.kind()) });
                // Nobody listens; asking in a tight loop would only take the time of whoever is to come back.
                pause();
            }
        }
    }
}

/// Open files that are nobody's stream: those of the gateway, and those of the agent beside one for each stream.
pub(crate) fn files(gateway: &Gateway, agent: &Agent) -> [f64; 2] {
    let (of_gateway, of_agent) = (gateway.scrape(), agent.scrape());
    let streams = of_agent.sum("adit_agent_streams", &[]);
    [of_gateway.sum("process_open_fds", &[]), of_agent.sum("process_open_fds", &[]) - streams]
}

/// After the load nothing is left of it but idle streams.
#[track_caller]
pub(crate) fn is_at_rest(gateway: &Gateway, agent: &Agent, base: [f64; 2]) {
    until("flows, connections and files are back where they began", SOON, || {
        let scrape = gateway.scrape();
        let open = scrape.sum("adit_flows", &[]) + scrape.sum("adit_public_connections", &[]);
        let now = files(gateway, agent);
        // The scrape itself is a connection, and the one before may not have ended yet.
        let is_base = now.iter().zip(base).all(|(now, base)| *now <= base + 2.0);
        if open < 0.5 && is_base {
            Ok(())
        } else {
            Err(format!("{open} open, files {now:?}, before {base:?}"))
        }
    });
}

/// Waits until a new connection gets an answer, and says how long that took since `started`.
#[track_caller]
pub(crate) fn recovery(what: &str, public: SocketAddr, started: Instant) {
    until(&format!("{what} is back"), promised(RECOVERY), || {
        let mut connection =
            Connection::open(public, promised(RECOVERY)).map_err(|error| error.to_string())?;
        let said = connection.exchange(&Request::get("load", "/hello")).map_err(|error| error.to_string())?;
        if said.status == 200 { Ok(()) } else { Err(said.head.first) }
    });
    eprintln!("{what} killed and started again: the tunnel answered after {:?}", started.elapsed());
}
