//! Decisions by address, and by policies as OpenZiti means them.

use super::*;
use crate::snapshot::{Rules, Snapshots};

fn decide(allow: &[&str], address: &str) -> Result<Permit, Denial> {
    decide_for(allow, Some(address.parse().unwrap()))
}

fn decide_for(allow: &[&str], address: Option<IpAddr>) -> Result<Permit, Denial> {
    let rules = Rules { allow: allow.iter().map(|net| net.parse().unwrap()).collect(), ..Rules::default() };
    authorize(&Snapshots::new(rules).current(), &Subject::public(address), &ServiceName::Tcp(1))
}

#[test]
fn without_rules_everybody_may_and_with_rules_only_those_named() {
    assert!(decide(&[], "203.0.113.9").is_ok());
    assert!(decide(&["203.0.113.0/24"], "203.0.113.9").is_ok());
    assert_eq!(decide(&["203.0.113.0/24"], "198.51.100.1"), Err(Denial::plain(Reason::AddressDenied)));
    assert!(decide(&["2001:db8::/32"], "2001:db8::1").is_ok());
    assert!(decide(&["2001:db8::/32"], "203.0.113.9").is_err());
}

#[test]
fn a_client_whose_address_is_not_known_is_on_no_list() {
    assert!(decide_for(&[], None).is_ok());
    let everybody = &["0.0.0.0/0", "::/0"];
    assert_eq!(decide_for(everybody, None), Err(Denial::plain(Reason::AddressDenied)));
}

#[test]
fn an_ipv4_client_on_a_dual_stack_listener_is_still_ipv4() {
    assert!(decide(&["203.0.113.0/24"], "::ffff:203.0.113.9").is_ok());
    assert!(decide(&["203.0.113.0/24"], "::ffff:198.51.100.1").is_err());
}
