//! Why a flow, a stream or a session ended: one closed list for status pages, `Adit-Reason`, metric labels,
//! log fields and the wire.

/// Whose move it is to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nobody: an ordinary end.
    Nobody,
    /// The client sent something wrong, or left.
    Client,
    /// A rule says no.
    Policy,
    /// The agent or the link to it.
    Agent,
    /// What stands behind the agent.
    Upstream,
    /// The gateway itself.
    Gateway,
}

impl Fault {
    /// The word used in pages, logs and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Agent => "agent",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $label:literal, $status:literal, $fault:ident;)+) => {
        /// Why something ended. Codes and labels are stable: codes are on the wire, labels in dashboards.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        impl Reason {
            /// Every reason, in the order of the reference page.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// The reason with this number on the wire; a number from a newer peer is [`Reason::Unknown`].
            #[must_use]
            pub const fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$name,)+
                    _ => Self::Unknown,
                }
            }

            /// The word in `Adit-Reason`, in metric labels and in logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// The HTTP status a client sees when this ends its request before a response; 0 when none is sent.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// Whose move it is.
            #[must_use]
            pub const fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)+ }
            }

            /// What happened, as a sentence for the reference page and the error page.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// The flow ended as it should.
    Done = 0, "done", 0, Nobody;
    /// The other side ended it for a reason this version does not know.
    Unknown = 1, "unknown", 502, Agent;

    /// The request breaks the rules of HTTP and was not passed on.
    BadRequest = 10, "bad_request", 400, Client;
    /// The request's headers are larger or more than the gateway accepts.
    HeadersTooLarge = 11, "headers_too_large", 431, Client;
    /// The request did not arrive in time.
    RequestTimeout = 12, "request_timeout", 408, Client;
    /// The client went away before the response was complete.
    ClientGone = 13, "client_gone", 499, Client;
    /// The request's target is longer than the gateway accepts.
    TargetTooLong = 14, "target_too_long", 414, Client;
    /// The method or expectation is one this gateway does not serve.
    NotImplemented = 15, "not_implemented", 501, Client;

    /// This address is not allowed to use the gateway.
    AddressDenied = 20, "address_denied", 403, Policy;
    /// The credentials are missing or wrong.
    Unauthorized = 21, "unauthorized", 401, Policy;
    /// Too many attempts; wait and try again.
    RateLimited = 22, "rate_limited", 429, Policy;
    /// The agent does not offer what it was asked for.
    NotOffered = 23, "not_offered", 502, Policy;
    /// A port that the agent offers is not allowed on the gateway, or cannot be bound there.
    PortUnavailable = 24, "port_unavailable", 409, Gateway;
    /// The gateway connects nowhere on behalf of agents, or not there.
    ForwardingDenied = 25, "forwarding_denied", 403, Policy;
    /// No policy allows this.
    NotPermitted = 26, "not_permitted", 403, Policy;
    /// It was allowed, and is not any more: a policy, an identity, a token or a service was changed or removed.
    Revoked = 27, "revoked", 403, Policy;
    /// The gateway has no HTTP listener, so nobody reaches what is offered under a host.
    NoListener = 28, "no_listener", 503, Gateway;

    /// No service is known under this host name.
    NoRoute = 30, "no_route", 404, Client;
    /// The service is known, but no agent that offers it is connected.
    NoAgent = 31, "no_agent", 503, Agent;
    /// The agent's session ended while it carried this flow.
    AgentLost = 32, "agent_lost", 502, Agent;
    /// The agent is shutting down and takes no new streams.
    AgentDraining = 33, "agent_draining", 503, Agent;

    /// The upstream refused the agent's connection.
    UpstreamRefused = 40, "upstream_refused", 502, Upstream;
    /// The upstream did not connect or answer in time.
    UpstreamTimeout = 41, "upstream_timeout", 504, Upstream;
    /// The TLS handshake with the upstream failed, most often over its certificate.
    UpstreamTls = 42, "upstream_tls", 502, Upstream;
    /// The upstream's address cannot be resolved or reached from the agent.
    UpstreamUnreachable = 43, "upstream_unreachable", 502, Upstream;
    /// The upstream closed the connection before its response was complete.
    UpstreamClosed = 44, "upstream_closed", 502, Upstream;
    /// The upstream's response breaks the rules of HTTP and was not passed on.
    UpstreamInvalid = 45, "upstream_invalid", 502, Upstream;
    /// The request came back to this gateway: the service's upstream leads to the gateway itself.
    LoopDetected = 46, "loop_detected", 508, Upstream;

    /// The gateway is shutting down.
    Draining = 50, "draining", 503, Gateway;
    /// The gateway is at one of its limits.
    Overloaded = 51, "overloaded", 503, Gateway;
    /// The gateway failed; its log says how.
    Internal = 52, "internal", 500, Gateway;

    /// The flow made no progress for too long.
    IdleTimeout = 60, "idle_timeout", 504, Nobody;
    /// The session was silent for too long.
    SessionTimeout = 61, "session_timeout", 502, Agent;
    /// The same agent connected again and took over.
    Replaced = 62, "replaced", 502, Agent;
    /// The peer broke the session protocol.
    ProtocolError = 63, "protocol_error", 502, Agent;
    /// The session carried nothing any more, although its connection stood.
    CanaryLost = 65, "canary_lost", 502, Agent;
    /// The side that opened the stream gave it up.
    Cancelled = 64, "cancelled", 502, Nobody;
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Reason;

    #[test]
    fn codes_and_labels_are_unique_and_codes_read_back() {
        assert!(Reason::ALL.len() > 20);
        let mut labels = HashSet::new();
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), reason);
            assert!(labels.insert(reason.label()), "label {} is used twice", reason.label());
            assert!(reason.explanation().ends_with('.'));
        }
        assert_eq!(Reason::from_code(65535), Reason::Unknown);
    }
}
