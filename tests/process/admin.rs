//! The admin interface beside its description: a tool that we did not write asks for all that it allows and more.

use std::time::Duration;

use crate::support::process::Process;
use crate::support::tools;
use crate::support::world::{GatewayFile, World};

/// What it makes up, it makes up of this: a run asks the same as the one before. Another number asks something else.
const SEED: &str = "1";
/// It asks some thousand times; a busy machine may take minutes for that.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn whatever_is_asked_of_the_admin_interface_is_answered_as_its_description_says() {
    let world = World::new();
    let secret = "the-secret-of-an-administrator";
    world.write("ops.token", secret);
    let gateway = world.gateway(GatewayFile {
        // Requests without a credential are part of it.
        more: "tokens: [{name: ops, token: 'file:ops.token', admin: true, limits: {}}]\n\
               limits: {max_auth_failures: 1000000}\n",
        ..GatewayFile::default()
    });
    let bearer = format!("Authorization: Bearer {secret}");
    let url = format!("https://{}/v1/openapi.json", gateway.control);
    // It keeps notes where it runs.
    let mut schemathesis = world.here(tools::schemathesis());
    schemathesis.args(["run", &url, "--header", &bearer]);
    let mut asking = Process::start(
        "schemathesis",
        schemathesis.args([
            "--seed",
            SEED,
            "--generation-deterministic",
            // As much as it likes, and not for as long: what is asked does not depend on how busy the machine is.
            "--phases=examples,coverage,fuzzing",
            "--tls-verify=false",
            // A stream has no end; what is in it is tested by itself.
            "--exclude-path=/v1/watch",
            "--max-examples=4",
            "--no-shrink",
            "--continue-on-failure",
            "--suppress-health-check=all",
            "--request-timeout=60",
            "--no-color",
        ]),
    );
    let code = asking.exit_code(PATIENCE);
    assert_eq!(code, 0, "{}\n{}", asking.stdout(), asking.stderr());
    assert!(asking.stdout().contains("Tested: 46"), "{}", asking.stdout());
}
