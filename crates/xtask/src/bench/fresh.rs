//! Steps that start a peer of their own: what it takes at rest, what idle connections and agents add, how fast
//! it is back, and what it does over a long path.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Scale;
use super::measure::{Bracket, Figures, Held};
use super::owned::{Owned, PATIENCE, Target, free_ports, pause, wait_for_listener};
use super::peers::{Kind, Peer};
use super::standing::{Ground, Standing};
use super::steps::{Fresh, How, Seen, measure};
use super::usage::Memory;

/// How long memory is given to settle before it is read.
const SETTLE: Duration = Duration::from_millis(500);
/// How long nothing happens while the processor time of idleness is taken.
const IDLE: Duration = Duration::from_secs(3);

/// Measures the step, or says that it makes no sense for this peer.
///
/// # Errors
/// When the peer does not start or does not answer again.
pub(super) fn run(
    step: Fresh,
    ground: &Ground<'_>,
    bracket: &Bracket,
    peer: &Peer,
    scale: &Scale,
) -> Result<Option<Seen>> {
    let has_hop = peer.kind != Kind::Direct;
    Ok(match step {
        Fresh::Footprint if has_hop => Some(footprint(&ground.start(peer)?, bracket, scale)?),
        Fresh::Idle if has_hop => Some((idle(&ground.start(peer)?, bracket, scale.idle)?, None)),
        Fresh::Recover if has_hop => Some((recover(ground.start(peer)?)?, None)),
        Fresh::Agents => agents(ground, bracket, peer, scale.agents)?.map(|figures| (figures, None)),
        Fresh::Far { megabits } => far(ground, bracket, peer, scale, megabits)?,
        Fresh::Footprint | Fresh::Idle | Fresh::Recover => None,
    })
}

fn mebibytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn footprint(peer: &Standing, bracket: &Bracket, scale: &Scale) -> Result<Seen> {
    pause(SETTLE);
    let mut figures = Figures::from([("set_up_ms".to_owned(), peer.set_up.as_secs_f64() * 1000.0)]);
    for (name, pids) in [("", peer.pids()), ("server_", peer.server_pids()), ("client_", peer.client_pids())]
    {
        if !pids.is_empty() {
            let memory = Memory::of(&pids)?;
            figures.insert(format!("{name}rest_mib"), mebibytes(memory.all));
            figures.insert(format!("{name}rest_anonymous_mib"), mebibytes(memory.anonymous));
        }
    }
    let load = How::Kept { size: 1024, connections: 256 };
    let (_, foreign) = measure(load, bracket, peer, scale)?;
    let memory = Memory::of(&peer.pids())?;
    figures.insert("loaded_mib".into(), mebibytes(memory.all));
    figures.insert("loaded_anonymous_mib".into(), mebibytes(memory.anonymous));
    Ok((figures, foreign))
}

fn idle(peer: &Standing, bracket: &Bracket, count: u32) -> Result<Figures> {
    pause(SETTLE);
    let target = peer.target();
    let memory = |pids: &[u32]| -> Result<f64> {
        Ok(if pids.is_empty() { 0.0 } else { Memory::of(pids)?.all as f64 })
    };
    let (server, client) = (peer.server_pids(), peer.client_pids());
    let before = (memory(&server)?, memory(&client)?);
    let mut command =
        bracket.tool(["idle", &target.addr().to_string(), target.host.as_str(), &count.to_string()]);
    let held = Held::start(&mut command)?;
    let open = held.figures.get("open").copied().unwrap_or(0.0);
    ensure!(open > 0.0, "not one connection was answered");
    pause(SETTLE * 3);
    let after = (memory(&server)?, memory(&client)?);
    let start = bracket.cpu(&peer.pids())?;
    pause(IDLE);
    let busy = bracket.cpu(&peer.pids())? - start;
    drop(held);
    Ok(Figures::from([
        ("open".to_owned(), open),
        ("server_kib".to_owned(), (after.0 - before.0) / open),
        ("client_kib".to_owned(), (after.1 - before.1) / open),
        ("kib".to_owned(), (after.0 + after.1 - before.0 - before.1) / open),
        ("busy_percent".to_owned(), busy / IDLE.as_secs_f64() * 100.0),
    ]))
}

fn recover(mut peer: Standing) -> Result<Figures> {
    let mut figures = Figures::new();
    for (name, gap) in [("at_once_ms", Duration::ZERO), ("after_2_s_ms", Duration::from_secs(2))] {
        pause(SETTLE * 2);
        peer.kill_server();
        pause(gap);
        let start = Instant::now();
        peer.start_server()?;
        // A half that does not come back is a result too.
        match peer.wait(start, PATIENCE) {
            Ok(took) => figures.insert(name.to_owned(), took.as_secs_f64() * 1000.0),
            Err(_) => figures.insert("lost".to_owned(), 1.0),
        };
        if figures.contains_key("lost") {
            return Ok(figures);
        }
    }
    if peer.plan.client.is_some() {
        pause(SETTLE);
        peer.kill_client();
        pause(SETTLE / 2);
        let start = Instant::now();
        peer.start_client()?;
        let took = peer.wait(start, PATIENCE)?;
        figures.insert("client_ms".into(), took.as_secs_f64() * 1000.0);
    }
    Ok(figures)
}

fn agents(ground: &Ground<'_>, bracket: &Bracket, peer: &Peer, count: u32) -> Result<Option<Figures>> {
    let place = ground.place(peer, usize::try_from(count)?)?;
    let plan = (peer.plan)(&place)?;
    let Some(server) = plan.server.filter(|_| !plan.agents.is_empty()) else { return Ok(None) };
    let server = server.start(&place.folder.join("server.log"))?;
    if let Some(port) = plan.meets_at {
        wait_for_listener(port)?;
    }
    pause(SETTLE);
    let pids = [server.pid()];
    let (memory, busy) = (Memory::of(&pids)?.anonymous as f64, bracket.cpu(&pids)?);
    let start = Instant::now();
    let mut running = Vec::new();
    for (at, (agent, _)) in plan.agents.iter().enumerate() {
        running.push(agent.start(&place.folder.join(format!("agent-{at}.log")))?);
    }
    let mut waiting: Vec<&Target> = plan.agents.iter().map(|(_, target)| target).collect();
    while !waiting.is_empty() {
        waiting.retain(|target| !target.answers());
        ensure!(start.elapsed() < PATIENCE * 2, "{} of {count} agents are not there", waiting.len());
        pause(Duration::from_millis(20));
    }
    let took = start.elapsed();
    pause(SETTLE * 2);
    let (with_agents, busy_then) = (Memory::of(&pids)?.anonymous as f64, bracket.cpu(&pids)?);
    let mut own =
        running.iter().map(|agent| Ok(Memory::of(&[agent.pid()])?.anonymous)).collect::<Result<Vec<_>>>()?;
    own.sort_unstable();
    pause(IDLE);
    let busy_idle = bracket.cpu(&pids)? - busy_then;
    let each = f64::from(count);
    Ok(Some(Figures::from([
        ("agents".to_owned(), each),
        ("seconds".to_owned(), took.as_secs_f64()),
        ("server_kib".to_owned(), (with_agents - memory) / each),
        // Small requests that only ask whether an agent is there are part of it.
        ("server_cpu_ms".to_owned(), (busy_then - busy) * 1000.0 / each),
        ("busy_percent".to_owned(), busy_idle / IDLE.as_secs_f64() * 100.0),
        ("agent_kib".to_owned(), own.get(own.len() / 2).copied().unwrap_or(0) as f64),
    ])))
}

fn far(
    ground: &Ground<'_>,
    bracket: &Bracket,
    peer: &Peer,
    scale: &Scale,
    megabits: u32,
) -> Result<Option<Seen>> {
    let mut place = ground.place(peer, 0)?;
    [place.via] = free_ports()?;
    let end = if peer.kind == Kind::Direct { place.upstream } else { place.control };
    let plan = (peer.plan)(&place)?;
    // There is no path between the halves of a single process, and one that cannot be told where to dial
    // cannot be sent along another.
    let is_fixed = plan.meets_at.is_some_and(|port| port != place.control);
    if peer.kind == Kind::Proxy || is_fixed {
        return Ok(None);
    }
    let local = |port: u16| format!("127.0.0.1:{port}");
    let path: Owned = bracket
        .launch(["delay", &local(place.via), &local(end), "25", &megabits.to_string()])
        .start(&place.folder.join("delay.log"))?;
    wait_for_listener(place.via)?;
    let standing = Standing::start(plan, place.folder)?;
    let target = standing.target();
    let (addr, host) = (target.addr().to_string(), target.host.clone());
    let patience = Duration::from_secs(120);
    let seconds = (scale.seconds + 1).to_string();

    let small = ["load", &addr, &host, "/bytes/1024", "1", &seconds, "kept"];
    let alone = bracket.run(&standing.pids(), Some(&path), &mut bracket.tool(small), patience)?.figures()?;
    let seconds_of_line = f64::from(scale.seconds) * 2.0;
    let bytes = if megabits == 0 {
        scale.bulk_bytes() / 2
    } else {
        u64::from(megabits) * 125_000 * u64::from(scale.seconds) * 2
    };
    let down = ["bulk", &addr, &host, "down", &bytes.to_string(), "1"];
    let used = bracket.run(&standing.pids(), Some(&path), &mut bracket.tool(down), patience)?;
    let bulk = used.figures()?;
    let figure = |figures: &Figures, name: &str| {
        figures.get(name).copied().with_context(|| format!("no figure {name}"))
    };
    let mut figures = Figures::from([
        ("p50_ms".to_owned(), figure(&alone, "p50_ms")?),
        ("mib_per_second".to_owned(), figure(&bulk, "mib_per_second")?),
    ]);
    if megabits > 0 {
        // What the head and one round trip take is part of it.
        let share = seconds_of_line / figure(&bulk, "seconds")?;
        figures.insert("line_percent".into(), share * 100.0);
    }
    Ok(Some((figures, Some(used.foreign))))
}
