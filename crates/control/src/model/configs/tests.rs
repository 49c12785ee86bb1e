//! What configs may say, and where an error is said to be.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A config with every property that can stand beside the others.
fn full_host() -> Value {
    json!({
        "protocol": "tcp", "address": "localhost", "port": 5432,
        "allowedSourceAddresses": ["10.0.0.0/8", "*.example.com"],
        "listenOptions": {
            "bindUsingEdgeIdentity": true, "identity": "local.prometheus.id", "connectTimeout": "1m30s",
            "cost": 65535, "maxConnections": 3, "precedence": "required"
        },
        "portChecks": [{"address": "localhost:5432", "interval": "5s", "timeout": "500ms", "actions": [
            {"trigger": "fail", "consecutiveEvents": 3, "duration": "10s", "action": "mark unhealthy"},
            {"trigger": "pass", "action": "decrease cost 20"},
            {"trigger": "change", "action": "send event"}
        ]}],
        "httpChecks": [{"url": "http://localhost/-/healthy", "method": "GET", "body": "", "expectStatus": 204,
            "expectInBody": "ok", "interval": "5s", "timeout": "1s", "actions": []}],
        "proxy": {"type": "http", "address": "proxy.example:3128"}
    })
}

fn forwarding_host() -> Value {
    json!({
        "forwardProtocol": true, "allowedProtocols": ["tcp", "udp"],
        "forwardAddress": true, "allowedAddresses": ["10.1.0.0/16", "*.svc"],
        "forwardAddressTranslations": [{"from": "10.1.0.0", "to": "10.2.0.0", "prefixLength": 16}],
        "forwardPort": true, "allowedPortRanges": [{"low": 80, "high": 80}, {"low": 8000, "high": 9000}],
        "listenOptions": {"connectTimeoutSeconds": 5}
    })
}

fn full_intercept() -> Value {
    json!({
        "protocols": ["tcp", "udp"],
        "addresses": ["kubeA.reflect.svc.ziti", "*.wild", "10.0.0.1", "2001:db8::/32"],
        "portRanges": [{"low": 80, "high": 80}, {"low": 8000, "high": 8010}],
        "dialOptions": {"identity": "node-$dst_ip", "connectTimeoutSeconds": 5},
        "sourceIp": "$src_ip:$src_port/$tunneler_id.name/$tunneler_id.tag[site]",
        "allowedSourceAddresses": ["192.0.2.0/24"]
    })
}

#[test]
fn the_documented_example_is_read_word_for_word() {
    let text = r#"{"protocols":["tcp"],"addresses":["local.prometheus.svc"],"portRanges":[{"low":80, "high":80}], "dialOptions": {"identity":"local.prometheus.id"}}"#;
    let config = InterceptV1::read(&serde_json::from_str(text).unwrap()).unwrap();
    assert!(config.matches("Local.Prometheus.svc.", 80) && !config.matches("local.prometheus.svc", 81));
    assert_eq!(config.dial_options.unwrap().identity.as_deref(), Some("local.prometheus.id"));
}

#[test]
fn every_property_is_known_and_written_back_as_it_was_read() {
    for data in [full_host(), forwarding_host()] {
        let config = HostV1::read(&data).unwrap();
        let mut written = serde_json::to_value(&config).unwrap();
        assert_eq!(HostV1::read(&written), Ok(config));
        if let Some(checks) = written.get_mut("httpChecks") {
            checks[0]["actions"] = json!([]);
        }
        assert_eq!(written, data);
    }
    let written = serde_json::to_value(InterceptV1::read(&full_intercept()).unwrap()).unwrap();
    // Host names are compared without case, and written so.
    assert_eq!(written["addresses"][0], "kubea.reflect.svc.ziti");
    assert_eq!(written["portRanges"], full_intercept()["portRanges"]);
}

#[test]
fn addresses_match_what_they_name() {
    let config = InterceptV1::read(&full_intercept()).unwrap();
    for (host, port, matches) in [
        ("KUBEA.reflect.svc.ziti.", 80, true),
        ("a.b.wild", 8005, true),
        ("wild", 80, false),
        ("10.0.0.1", 8010, true),
        ("10.0.0.2", 80, false),
        ("2001:db8::7", 80, true),
        ("[2001:db8::7]", 80, true),
        ("2001:db9::7", 80, false),
        ("10.0.0.1", 8011, false),
        ("not a host", 80, false),
    ] {
        assert_eq!(config.matches(host, port), matches, "{host}:{port}");
    }
}

/// A document with one value at a path (`a.b.0.c`) replaced; `Null` takes it out.
fn with(mut data: Value, path: &str, value: Value) -> Value {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let place = parents.split('.').filter(|part| !part.is_empty()).fold(&mut data, |at, part| {
        match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        }
    });
    let fields = place.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(last)
    } else {
        fields.insert(last.to_owned(), value)
    };
    data
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_said_with_its_place_and_what_belongs_there() {
    for (data, path, value, said) in [
        (
            full_host(),
            "prot",
            json!(1),
            "host.v1: prot: there is no property `prot`; did you mean `protocol`?",
        ),
        (
            full_host(),
            "listenOptions.maxConection",
            json!(3),
            "listenOptions.maxConection: there is no property",
        ),
        (
            full_host(),
            "portChecks.0.actions.0.trigger",
            json!("often"),
            "portChecks[0].actions[0].trigger: unknown variant `often`, expected one of `fail`, `pass`, `change`",
        ),
        (
            full_host(),
            "portChecks.0.actions.0.action",
            json!("reboot"),
            "portChecks[0].actions[0].action: `reboot` is no action; there are: mark unhealthy",
        ),
        (
            full_host(),
            "portChecks.0.actions.0.consecutiveEvents",
            json!(0),
            "portChecks[0].actions[0].consecutiveEvents: it must be 1 or more",
        ),
        (
            full_host(),
            "portChecks.0.interval",
            json!("5"),
            "portChecks[0].interval: `5` is no time; write a number with its unit, as in 5s",
        ),
        (
            full_host(),
            "portChecks.0.interval",
            json!("0s"),
            "portChecks[0].interval: it must be more than 0s",
        ),
        (
            full_host(),
            "portChecks.0.address",
            json!("localhost"),
            "portChecks[0].address: `localhost` is no host with a port",
        ),
        (full_host(), "portChecks.0.timeout", json!(null), "portChecks[0]: missing field `timeout`"),
        (
            full_host(),
            "httpChecks.0.url",
            json!("ftp://x"),
            "httpChecks[0].url: `ftp://x` is no address of the web",
        ),
        (full_host(), "httpChecks.0.expectStatus", json!(20), "httpChecks[0].expectStatus: 20 is no status"),
        (full_host(), "port", json!(0), "port: 0 is no port; ports are 1 to 65535"),
        (full_host(), "port", json!(70000), "port: 70000 is no port; ports are 1 to 65535"),
        (
            full_host(),
            "port",
            json!(null),
            "port: it is missing; give port, or forwardPort: true with allowedPortRanges",
        ),
        (
            full_host(),
            "address",
            json!("localhost:80"),
            "address: `localhost:80` is no host name or address; the port has a property of its own",
        ),
        (full_host(), "address", json!("10.0.0.0/8"), "address: `10.0.0.0/8` is more than one host"),
        (full_host(), "forwardAddress", json!(true), "forwardAddress: address is given too"),
        (
            full_host(),
            "allowedAddresses",
            json!(["a"]),
            "allowedAddresses: it is of use only with forwardAddress: true",
        ),
        (full_host(), "protocol", json!("sctp"), "protocol: unknown variant `sctp`, expected `tcp` or `udp`"),
        (
            full_host(),
            "listenOptions.connectTimeoutSeconds",
            json!(5),
            "listenOptions.connectTimeoutSeconds: connectTimeout says the same",
        ),
        (full_host(), "listenOptions.cost", json!(65536), "listenOptions.cost: "),
        (
            full_host(),
            "listenOptions.maxConnections",
            json!(0),
            "listenOptions.maxConnections: it must be 1 or more",
        ),
        (
            full_host(),
            "listenOptions.precedence",
            json!("first"),
            "listenOptions.precedence: unknown variant `first`",
        ),
        (
            full_host(),
            "forwardAddressTranslations",
            forwarding_host()["forwardAddressTranslations"].clone(),
            "forwardAddressTranslations: addresses are translated only where",
        ),
        (full_host(), "proxy.type", json!("socks5"), "proxy.type: unknown variant `socks5`"),
        (forwarding_host(), "allowedAddresses", json!(null), "allowedAddresses: it is missing"),
        (forwarding_host(), "allowedProtocols", json!([]), "allowedProtocols: the list is empty"),
        (
            forwarding_host(),
            "allowedPortRanges.1.low",
            json!(9001),
            "allowedPortRanges[1]: low is 9001 and high 9000",
        ),
        (
            forwarding_host(),
            "forwardAddressTranslations.0.prefixLength",
            json!(33),
            "forwardAddressTranslations[0].prefixLength: 33 is too much",
        ),
        (
            forwarding_host(),
            "forwardAddressTranslations.0.to",
            json!("::1"),
            "forwardAddressTranslations[0]: 10.1.0.0 and ::1 are not of the same kind",
        ),
    ] {
        let error = HostV1::read(&with(data, path, value)).unwrap_err();
        assert!(error.contains(said), "{error}\n{said}");
    }
    for (path, value, said) in [
        ("portRanges.0.low", json!(0), "intercept.v1: portRanges[0].low: 0 is no port"),
        ("portRanges.1.high", json!(7), "intercept.v1: portRanges[1]: low is 8000 and high 7"),
        ("portRanges", json!([]), "portRanges: the list is empty"),
        ("addresses", json!(["a b"]), "addresses[0]: `a b` is no host name, *.domain, address or network"),
        ("addresses", json!(["ok", "10.0.0.0/33"]), "addresses[1]: `10.0.0.0/33` is no network"),
        ("addresses", json!(["*"]), "addresses[0]: `*` alone is not possible"),
        ("addresses", json!(null), "missing field `addresses`"),
        ("protocols", json!("tcp"), "protocols: invalid type: string \"tcp\", expected a sequence"),
        (
            "dialOptions.identity",
            json!("$dst_prt"),
            "dialOptions.identity: there is no variable `$dst_prt`; there are $dst_protocol",
        ),
        ("sourceIp", json!("$tunneler_id.tag[x"), "sourceIp: there is no variable"),
    ] {
        let error = InterceptV1::read(&with(full_intercept(), path, value)).unwrap_err();
        assert!(error.contains(said), "{error}\n{said}");
    }
}

/// Any document: of a few levels, with names that mean something here.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..70000_u32).prop_map(Value::from),
        prop_oneof!["tcp|udp|5s|1h0m|\\*\\.a|10\\.0\\.0\\.0/8|mark healthy|increase cost 5", ".{0,8}"]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof!["low|high|port|address|protocol|portChecks|listenOptions|cost", ".{0,5}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a document that is a property.
fn places(data: &Value, path: &str, found: &mut Vec<String>) {
    let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(fields) = data.as_object() {
        // A path is taken apart at its dots.
        let is_plain = |name: &str| !name.is_empty() && !name.contains('.') && name.parse::<usize>().is_err();
        for (name, value) in fields.iter().filter(|(name, _)| is_plain(name)) {
            found.push(under(name));
            places(value, &under(name), found);
        }
    }
    for (index, value) in data.as_array().into_iter().flatten().enumerate() {
        places(value, &under(&index.to_string()), found);
    }
}

/// A full document with some properties replaced or taken out.
fn damaged() -> impl Strategy<Value = Value> {
    let change = (any::<prop::sample::Index>(), prop_oneof![3 => Just(Value::Null), 2 => any_json()]);
    let full = prop_oneof![Just(full_host()), Just(forwarding_host()), Just(full_intercept())];
    (full, prop::collection::vec(change, 0..4)).prop_map(|(mut data, changes)| {
        for (index, value) in changes {
            let mut found = Vec::new();
            places(&data, "", &mut found);
            if !found.is_empty() {
                data = with(data, &found[index.index(found.len())], value);
            }
        }
        data
    })
}

proptest! {
    #[test]
    fn reading_ends_for_every_document_and_what_was_read_is_read_again_from_what_is_written(
        data in prop_oneof![any_json(), damaged()]
    ) {
        if let Ok(config) = HostV1::read(&data) {
            prop_assert_eq!(HostV1::read(&serde_json::to_value(&config).unwrap()), Ok(config));
        }
        if let Ok(config) = InterceptV1::read(&data) {
            prop_assert_eq!(InterceptV1::read(&serde_json::to_value(&config).unwrap()), Ok(config));
        }
    }

    #[test]
    fn times_are_read_as_they_are_written(nanos in any::<u64>()) {
        let span = Span(std::time::Duration::from_nanos(nanos));
        prop_assert_eq!(span.to_string().parse(), Ok(span));
    }

    #[test]
    fn any_text_is_a_time_an_address_or_refused(text in ".{0,12}") {
        if let Ok(span) = text.parse::<Span>() {
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
