//! Sessions by QUIC between real processes.

use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, until};
use crate::support::world::{GatewayFile, World};

#[test]
fn an_agent_by_quic_is_back_soon_after_its_gateway_was_killed_and_started_again() {
    let (world, service) = (World::new(), Upstream::start());
    let mut gateway = world.lasting_gateway(GatewayFile::default());
    let url = format!("quic://{}", gateway.control);
    let upstream = service.url();
    let args = ["http", "client", "--url", &url, "--token-file", "token", "--upstream", &upstream];
    let mut agent = Process::start("agent", &mut world.adit(&args));
    agent.line(&["session opened", "quic"]);
    gateway.process.kill();
    let again = world.again(&gateway, GatewayFile::default());
    until("the agent is back", SOON, || match again.ask("/status") {
        said if said.contains("quic") => Ok(()),
        said => Err(said),
    });
    // It was told by the new one, and did not have to wait until the silence of the old one was long enough.
    let ended = agent.line(&["session ended"]);
    assert!(!ended.contains("timeout"), "{ended}");
    eprintln!("{ended}");
}
