//! The admin interface beside its description: a tool that we did not write asks for all that it allows and more.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::process::run;
use crate::support::tools;
use crate::support::world::{GatewayFile, World};

/// How long it may ask.
const BUDGET: &str = "40";

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
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = (since.as_secs() % 1_000_000).to_string();
    println!("the seed is {seed}");
    let bearer = format!("Authorization: Bearer {secret}");
    let url = format!("https://{}/v1/openapi.json", gateway.control);
    // It keeps notes where it runs.
    let asked = run(world
        .here(tools::schemathesis())
        .args(["run", &url, "--header", &bearer, "--seed", &seed])
        .args([
            "--tls-verify=false",
            // A stream has no end; what is in it is tested by itself.
            "--exclude-path=/v1/watch",
            "--max-examples=12",
            "--no-shrink",
            "--continue-on-failure",
            "--generation-database=none",
            "--suppress-health-check=all",
            "--request-timeout=10",
            "--no-color",
            "--max-time",
            BUDGET,
        ]));
    assert_eq!(asked.code, 0, "seed {seed}\n{}\n{}", asked.out, asked.err);
    assert!(asked.out.contains("Tested: 4"), "{}", asked.out);
}
