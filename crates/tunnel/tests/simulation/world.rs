//! The gateway, the agent that keeps a session to it, and the storm, all in virtual time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::handshake::{Hello, Offer, PROOF_LEN, capabilities};
use adit_proto::names::{HostPattern, InstanceId, ServiceName};
use adit_proto::reason::Reason;
use adit_tunnel::handshake;
use adit_tunnel::handshake::{Agreement, Credential};
use adit_tunnel::proof::TokenKey;
use adit_tunnel::reconnect::Backoff;
use adit_tunnel::scope::Scope;
use adit_tunnel::session::{Session, Side};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::actors;
use crate::ledger::Flow;
use crate::pipe::{End, Link};
use crate::plan::{Behind, Event, Scenario};
use crate::random::Random;

/// Numbers of the two ends, everywhere.
pub(crate) const GATEWAY: usize = 0;
pub(crate) const AGENT: usize = 1;

const EXPORTER: [u8; 32] = [7; 32];
const GREET_TIMEOUT: Duration = Duration::from_secs(10);
/// Once the storm is over, whatever is open has ended within this, whoever waits for whom.
const CALM: Duration = Duration::from_secs(240);
/// How often the promises about time and memory are checked.
const LOOK: Duration = Duration::from_millis(250);
/// A dead link is known so long after the last sign of life, and after something was sent that waits for an answer.
const IDLE_BOUND: Duration = Duration::from_secs(15);
const WAITING_BOUND: Duration = Duration::from_secs(4);

/// Waits in virtual time.
pub(crate) async fn pause(time: Duration) {
    // tidy: allow(sleep): the clock is virtual
    tokio::time::sleep(time).await;
}

/// One try of the agent to open a session, and what became of it.
#[derive(Debug)]
struct Dialled {
    /// Every lane there ever was.
    lanes: Vec<Dialling>,
    /// Gateway's and agent's.
    sessions: [Option<Session>; 2],
    /// One for each end: whatever runs there dies with it.
    processes: [Scope; 2],
    /// Something has happened to the whole of it that may end it.
    has_cause: bool,
    /// The agent has announced that it takes no more streams.
    is_draining: bool,
    /// Since when each end waits for an answer.
    asked: [Option<Asked>; 2],
    /// The clocks jumped.
    jumped: Option<Instant>,
}

/// One connection.
#[derive(Debug)]
struct Dialling {
    link: Link,
    /// The gateway has welcomed it.
    stands: bool,
    /// Something has happened to it that may end it.
    has_cause: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Bytes that end had got when it asked.
    carried: u64,
}

#[derive(Debug, Default)]
struct State {
    dialled: Vec<Dialled>,
    current: Option<(usize, Session)>,
    flows: Vec<Flow>,
    faults: Vec<String>,
    trace: Option<Vec<String>>,
    is_over: bool,
    again: bool,
    /// Until when the network is down for new links too.
    down_until: Option<Instant>,
}

/// Everything of one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    state: Mutex<State>,
    /// Clients, answers, and both roles' loops.
    tasks: Scope,
    credential: Credential,
    started: Instant,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) faults: Vec<String>,
    pub(crate) trace: Vec<String>,
    /// Streams that ended in order in both directions, and all that were opened.
    pub(crate) whole: usize,
    pub(crate) opened: usize,
    pub(crate) sessions: usize,
    pub(crate) bytes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, is_traced: bool) -> Arc<Self> {
        let scenario = Scenario::draw(&mut Random::new(seed));
        let flows = scenario.plans.iter().map(|_| Flow::default()).collect();
        let trace = is_traced.then(Vec::new);
        let state = Mutex::new(State { flows, trace, ..State::default() });
        Arc::new(Self {
            scenario,
            state,
            tasks: Scope::new(),
            credential: Credential::Token(TokenKey::new(b"simulated")),
            started: Instant::now(),
        })
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let at = self.started.elapsed().as_secs_f64();
        if let Some(trace) = &mut self.state.lock().trace {
            trace.push(format!("{at:9.3} {}", what()));
        }
    }

    pub(crate) fn flow<T>(&self, key: usize, f: impl FnOnce(&mut Flow) -> T) -> T {
        f(&mut self.state.lock().flows[key])
    }

    fn fail(&self, what: String) {
        self.note(|| format!("FAULT {what}"));
        let faults = &mut self.state.lock().faults;
        // The first ones tell most, and one of a kind is enough.
        let is_known = faults.iter().any(|known| known.get(..30) == what.get(..30));
        if faults.len() < 10 && !is_known {
            faults.push(what);
        }
    }

    /// The session that the gateway would use now.
    pub(crate) fn current(&self) -> Option<(usize, Session)> {
        self.state.lock().current.clone()
    }

    /// An end has sent something that waits for an answer.
    pub(crate) fn asked(&self, number: usize, side: usize) {
        let dialled = &mut self.state.lock().dialled[number];
        let carried = dialled.lanes[0].link.carried(side);
        if dialled.asked[side].is_none_or(|asked| asked.carried != carried) {
            dialled.asked[side] = Some(Asked { at: Instant::now(), carried });
        }
    }

    fn seed(&self) -> u64 {
        self.scenario.plans.len() as u64 * 7_919 + self.scenario.weather.bandwidth
    }

    /// Runs everything to its end and says what was wrong.
    pub(crate) async fn run(self: Arc<Self>) -> Verdict {
        self.note(|| format!("{:?}", self.scenario.weather));
        let clients = Scope::new();
        for key in 0..self.scenario.plans.len() {
            clients.spawn("client", actors::client(Arc::clone(&self), key));
        }
        self.tasks.spawn("agent", Arc::clone(&self).agent());
        self.tasks.spawn("watch", Arc::clone(&self).watch());
        self.storm().await;
        self.note(|| "calm".to_owned());
        if clients.drain(CALM).await > 0 {
            let hung = self.hung(GATEWAY);
            self.fail(format!("clients hang: {hung}"));
        }
        self.settle().await;
        self.verdict()
    }

    async fn storm(self: &Arc<Self>) {
        let mut random = Random::new(self.seed());
        for (at, event) in &self.scenario.storm {
            pause(at.saturating_sub(self.started.elapsed())).await;
            self.note(|| format!("storm: {event:?}"));
            self.happens(*event, &mut random).await;
        }
        // The last fault has an end too.
        let down_until = self.state.lock().down_until;
        if let Some(until) = down_until {
            tokio::time::sleep_until(until).await;
        }
        self.heal();
    }

    fn heal(&self) {
        let state = self.state.lock();
        state.dialled.iter().flat_map(|dialled| &dialled.lanes).for_each(|lane| lane.link.heal());
    }

    async fn happens(self: &Arc<Self>, event: Event, random: &mut Random) {
        match event {
            Event::Strike(fault, time) => {
                let world = Arc::clone(self);
                {
                    let state = &mut *self.state.lock();
                    // Everything, or what it hits.
                    let one = random.chance(50);
                    for lane in state.dialled.iter_mut().flat_map(|dialled| &mut dialled.lanes) {
                        if !one || random.chance(50) {
                            lane.has_cause = true;
                            lane.link.strike(fault);
                        }
                    }
                    let until = Instant::now() + time;
                    state.down_until = Some(state.down_until.map_or(until, |known| known.max(until)));
                }
                self.tasks.spawn("healing", async move {
                    pause(time).await;
                    let is_over = world.state.lock().down_until.is_none_or(|until| until <= Instant::now());
                    if is_over {
                        world.note(|| "the network is back".to_owned());
                        world.heal();
                    }
                });
            }
            Event::Jump(time) => {
                for dialled in &mut self.state.lock().dialled {
                    dialled.has_cause = true;
                    dialled.jumped = Some(Instant::now() + time);
                }
                tokio::time::advance(time).await;
            }
            Event::Drain(side, patience) => {
                let session = self.last(side, |dialled| dialled.is_draining |= side == AGENT);
                if side == GATEWAY {
                    // A gateway that drains sends nothing new anywhere.
                    self.state.lock().current = None;
                }
                let reason = [Reason::Draining, Reason::AgentDraining][side];
                if let Some(session) = session {
                    self.tasks.spawn("drain", drain(Arc::clone(self), session, reason, patience));
                }
            }
            Event::Close(side) => {
                if let Some(session) = self.last(side, |_| ()) {
                    session.close(random.pick(&[Reason::Draining, Reason::Replaced]));
                }
            }
            Event::Crash(side) => {
                let mut process = None;
                drop(self.last(side, |dialled| process = Some(dialled.processes[side].clone())));
                process.into_iter().for_each(|process| process.cancel());
            }
            Event::Again => self.state.lock().again = true,
        }
    }

    /// One end of the newest session; it is about to be told to end.
    fn last(&self, side: usize, f: impl FnOnce(&mut Dialled)) -> Option<Session> {
        let state = &mut *self.state.lock();
        let dialled = state.dialled.last_mut()?;
        dialled.has_cause = true;
        f(dialled);
        dialled.sessions[side].clone()
    }

    /// Keeps a session to the gateway, as an agent does.
    async fn agent(self: Arc<Self>) {
        let mut backoff = Backoff::new(self.seed());
        let mut random = Random::new(self.seed());
        loop {
            let started = Instant::now();
            if let Some((number, session)) = Self::connect(&self, &mut random).await {
                if self.state.lock().is_over {
                    session.close(Reason::Draining);
                }
                if self.serve(number, &session, true).await {
                    // The old session goes on by itself until the gateway replaces it.
                    self.state.lock().dialled[number].has_cause = true;
                    let world = Arc::clone(&self);
                    self.tasks.spawn("former agent", async move {
                        world.serve(number, &session, false).await;
                    });
                }
                backoff.stood(started.elapsed());
            }
            if self.state.lock().is_over {
                return;
            }
            pause(backoff.next_pause()).await;
        }
    }

    /// Serves until the session ends, or, if it may leave, until the agent is to come again beside it: true.
    async fn serve(self: &Arc<Self>, number: usize, session: &Session, may_leave: bool) -> bool {
        loop {
            match timeout(Duration::from_millis(500), session.accept()).await {
                Ok(Some((header, stream))) => {
                    let process = self.state.lock().dialled[number].processes[AGENT].clone();
                    let answer = actors::answer(Arc::clone(self), session.clone(), number, header, stream);
                    process.spawn("answer", answer);
                }
                Ok(None) => {
                    self.note(|| format!("agent's session {number} ended: {:?}", session.end()));
                    return false;
                }
                Err(_elapsed) => {
                    if may_leave && std::mem::take(&mut self.state.lock().again) {
                        return true;
                    }
                }
            }
        }
    }

    async fn connect(world: &Arc<Self>, random: &mut Random) -> Option<(usize, Session)> {
        let processes = [Scope::new(), Scope::new()];
        let number = {
            let state = &mut *world.state.lock();
            state.dialled.push(Dialled {
                lanes: Vec::new(),
                sessions: [None, None],
                processes: processes.clone(),
                has_cause: false,
                is_draining: false,
                asked: [None; 2],
                jumped: None,
            });
            state.dialled.len() - 1
        };
        world.note(|| format!("agent dials {number}"));
        let far = Self::dial(world, number, 0, random).await?;
        let session = Session::start(far, Side::Agent, &processes[AGENT]);
        world.state.lock().dialled[number].sessions[AGENT] = Some(session.clone());
        let lanes = Self::keep_lanes(Arc::clone(world), number, session.clone(), random.fork());
        processes[AGENT].spawn("lanes", lanes);
        Some((number, session))
    }

    /// Opens further lanes while streams share them, as an agent does.
    async fn keep_lanes(self: Arc<Self>, number: usize, session: Session, mut random: Random) {
        let mut backoff = Backoff::new(random.next());
        loop {
            session.shared().await;
            session.lanes_below(self.scenario.lanes).await;
            if session.end().is_some() || session.is_leaving() {
                return;
            }
            if let Some(far) = Self::dial(&self, number, capabilities::LANES, &mut random).await
                && let Ok(beginning) = session.add_lane(&[])
            {
                self.note(|| format!("session {number} has another lane"));
                let process = self.state.lock().dialled[number].processes[AGENT].clone();
                beginning.start(far, &process);
                continue;
            }
            pause(backoff.next_pause()).await;
        }
    }

    /// A connection that the gateway has welcomed, for a session or for a further lane of it.
    async fn dial(world: &Arc<Self>, number: usize, wants: u64, random: &mut Random) -> Option<End> {
        let (link, near, mut far) = Link::new(world.scenario.weather, random);
        let (lane, process) = {
            let state = &mut *world.state.lock();
            let is_down = state.down_until.is_some_and(|until| until > Instant::now());
            if is_down {
                link.strike(crate::pipe::Fault::BlackHole);
            }
            let lanes = &mut state.dialled[number].lanes;
            lanes.push(Dialling { link, stands: false, has_cause: is_down });
            let lane = lanes.len() - 1;
            (lane, state.dialled[number].processes[GATEWAY].clone())
        };
        process.spawn("gateway", Arc::clone(world).welcome(number, near));
        let hello = Hello { capabilities: wants, ..hello(number) };
        let greeting = handshake::greet(&mut far, hello, &world.credential, &EXPORTER);
        match timeout(GREET_TIMEOUT, greeting).await {
            Ok(Ok(_welcome)) => {
                world.state.lock().dialled[number].lanes[lane].stands = true;
                Some(far)
            }
            failed => {
                world.note(|| format!("agent has no connection for session {number}: {failed:?}"));
                None
            }
        }
    }

    /// The gateway's side of a new connection.
    async fn welcome(self: Arc<Self>, number: usize, mut near: End) {
        let greeting = async {
            let hello = handshake::read_hello(&mut near).await?;
            let key = self.credential.token().unwrap();
            assert!(handshake::is_proved(&hello, key, &EXPORTER));
            Ok::<_, handshake::HandshakeError>(hello.capabilities)
        };
        let Ok(Ok(wants)) = timeout(GREET_TIMEOUT, greeting).await else { return };
        let process = self.state.lock().dialled[number].processes[GATEWAY].clone();
        let agreement = Agreement { version: 1, release: "simulated", ..Agreement::default() };
        let welcome = handshake::welcome(agreement, &self.credential, &EXPORTER);
        if wants & capabilities::LANES != 0 {
            let session = self.state.lock().dialled[number].sessions[GATEWAY].clone();
            if let Some(Ok(beginning)) = session.map(|session| session.add_lane(&welcome)) {
                beginning.start(near, &process);
            }
            return;
        }
        let (session, beginning) = Session::prepare(Side::Gateway, &welcome);
        let replaced = {
            let state = &mut *self.state.lock();
            state.dialled[number].sessions[GATEWAY] = Some(session.clone());
            if state.current.as_ref().is_some_and(|(current, _)| *current > number) {
                // It comes too late: the same agent has a newer session.
                state.dialled[number].has_cause = true;
                Some(session)
            } else {
                let old = state.current.replace((number, session));
                old.map(|(old, session)| {
                    state.dialled[old].has_cause = true;
                    session
                })
            }
        };
        beginning.start(near, &process);
        self.note(|| format!("gateway has session {number}"));
        replaced.into_iter().for_each(|old| old.close(Reason::Replaced));
    }

    /// Checks what is promised at every moment.
    async fn watch(self: Arc<Self>) {
        while !self.state.lock().is_over {
            let faults = self.broken_promises();
            faults.into_iter().for_each(|fault| self.fail(fault));
            pause(LOOK).await;
        }
    }

    fn broken_promises(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut faults = Vec::new();
        for (key, flow) in state.flows.iter().enumerate() {
            let slack = match self.scenario.plans[key].behind {
                // What the pipe to the upstream and the relay hold.
                Behind::Echo { pipe, .. } => 2 * (pipe as u64 + 64 * 1024),
                _ => 0,
            };
            if flow.is_overfull(slack) {
                faults.push(format!("stream {key} holds too much: {flow:?}"));
            }
        }
        for (number, dialled) in state.dialled.iter().enumerate() {
            for side in [GATEWAY, AGENT] {
                let Some(session) = &dialled.sessions[side] else { continue };
                if let Some(fault) = dialled.overdue(side, session) {
                    faults.push(format!("session {number} at end {side}: {fault}"));
                }
            }
        }
        faults
    }

    fn hung(&self, side: usize) -> String {
        let state = self.state.lock();
        let mut text = String::new();
        for (key, flow) in state.flows.iter().enumerate().filter(|(_, flow)| !flow.is_done[side]) {
            writeln!(text, "{key}: {:?} {flow:?}", self.scenario.plans[key]).unwrap();
        }
        text
    }

    /// Ends everything in order and looks for what is left.
    async fn settle(&self) {
        self.state.lock().is_over = true;
        let sessions: Vec<_> = self.state.lock().dialled.iter().flat_map(|d| d.sessions.clone()).collect();
        let mut answered = Vec::new();
        for dialled in &mut self.state.lock().dialled {
            dialled.is_draining = true;
            answered.push(dialled.sessions[AGENT].clone());
        }
        for session in answered.into_iter().flatten() {
            // The clients are gone, so the answers are about to end.
            if timeout(CALM, session.drain(Reason::AgentDraining)).await.is_err() {
                let hung = self.hung(AGENT);
                self.fail(format!("the agent's end keeps {} streams: {hung}", session.streams()));
            }
            session.close(Reason::Draining);
        }
        self.state.lock().current = None;
        let cut = self.tasks.drain(CALM).await;
        if cut > 0 {
            self.fail(format!("{cut} tasks were left"));
        }
        let processes: Vec<_> = self.state.lock().dialled.iter().flat_map(|d| d.processes.clone()).collect();
        for (number, process) in processes.iter().enumerate() {
            let cut = process.drain(CALM).await;
            if cut > 0 {
                self.fail(format!("{cut} tasks were left of session {}, end {}", number / 2, number % 2));
            }
        }
        for session in sessions.into_iter().flatten() {
            if session.streams() > 0 || session.end().is_none() {
                self.fail(format!("a session is left: {} streams, {:?}", session.streams(), session.end()));
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let mut state = self.state.lock();
        let mut faults = std::mem::take(&mut state.faults);
        for (number, dialled) in state.dialled.iter().enumerate() {
            for lane in dialled.lanes.iter().filter(|lane| lane.link.ends() > 0) {
                faults.push(format!("a link of session {number} still has {} ends", lane.link.ends()));
            }
            for end in dialled.sessions.iter().flatten().filter_map(Session::end) {
                if end == Reason::ProtocolError || end == Reason::Unknown {
                    faults.push(format!("session {number} ended with {end}"));
                }
            }
        }
        let flows = &state.flows;
        for (key, flow) in flows.iter().enumerate() {
            let is_draining = flow.session.is_some_and(|number| state.dialled[number].is_draining);
            let mut reasons = flow.session.map(|number| state.dialled[number].reasons()).unwrap_or_default();
            if is_draining && flow.accepted == 0 {
                reasons.push(Reason::AgentDraining);
            }
            let fault = flow.faults(key, &reasons);
            if !fault.is_empty() {
                faults.push(fault);
            }
        }
        Verdict {
            whole: flows.iter().filter(|flow| flow.is_whole()).count(),
            opened: flows.iter().filter(|flow| flow.session.is_some()).count(),
            sessions: state.dialled.len(),
            bytes: flows.iter().flat_map(|flow| &flow.ways).map(|way| way.read).sum(),
            trace: state.trace.take().unwrap_or_default(),
            faults,
        }
    }
}

impl Dialled {
    /// What a stream may be told beside what its two ends did to it.
    fn reasons(&self) -> Vec<Reason> {
        let mut reasons: Vec<_> = self.sessions.iter().flatten().filter_map(Session::end).collect();
        // A lane may be lost while its session stands; and a session may end as announced while its streams are lost.
        if self.has_cause || self.is_crashed() || self.lanes.iter().any(|lane| lane.has_cause) {
            reasons.extend([Reason::AgentLost, Reason::SessionTimeout]);
        }
        reasons
    }

    fn is_crashed(&self) -> bool {
        self.processes.iter().any(Scope::is_cancelled)
    }

    /// What is wrong with how long a session has stood.
    fn overdue(&self, side: usize, session: &Session) -> Option<String> {
        let now = Instant::now();
        let grace = LOOK * 2;
        if let Some(end) = session.end() {
            let is_struck = self.lanes.iter().filter(|lane| lane.stands).all(|lane| lane.has_cause);
            let is_early = !self.has_cause && !is_struck && !self.is_crashed();
            return (is_early && self.sessions.iter().flatten().count() == 2)
                .then(|| format!("it ended without a cause: {end}"));
        }
        let since = |then: Instant| now - self.jumped.map_or(then, |jumped| then.max(jumped));
        for Dialling { link, .. } in &self.lanes {
            let silence = since(link.heard(side));
            if link.is_used(side) && silence > IDLE_BOUND + grace {
                return Some(format!("nothing was heard for {silence:?}"));
            }
        }
        // With several lanes nobody can tell which one carries a stream.
        let [Dialling { link, .. }] = self.lanes.as_slice() else { return None };
        let asked = self.asked[side].filter(|asked| asked.carried == link.carried(side))?;
        let waits = since(asked.at);
        (waits > WAITING_BOUND + grace).then(|| format!("nothing answers what was sent for {waits:?}"))
    }
}

async fn drain(world: Arc<World>, session: Session, reason: Reason, patience: Duration) {
    let in_time = timeout(patience, session.drain(reason)).await.is_ok();
    if in_time && session.end().is_none() && session.streams() > 0 {
        world.fail(format!("a drain is over and {} streams are open", session.streams()));
    }
    world.note(|| format!("drained: {in_time}"));
    session.close(reason);
}

fn hello(number: usize) -> Hello {
    Hello {
        versions: (1, 1),
        capabilities: 0,
        instance: InstanceId::from_bytes([1; 16]),
        generation: number as u64 + 1,
        release: "simulated".to_owned(),
        hostname: "simulated".to_owned(),
        offers: vec![Offer {
            service: ServiceName::Host(HostPattern::Any),
            upstream: "http://simulated".to_owned(),
        }],
        proof: [0; PROOF_LEN],
    }
}
