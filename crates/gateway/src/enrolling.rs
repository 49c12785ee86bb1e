//! How identities come to certificates: invitations, enrollment, renewal. What is asked and answered, without HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_control::authority::{Authority, AuthorityError, PeerCertificate};
use adit_control::enrollment::{EnrollmentError, Invite};
use adit_control::model::Timestamp;
use adit_control::{ChangeError, Changes};
use adit_proto::name::Name;
use adit_proto::reason::Fault;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::State;
use crate::tls::{Identity, Served};

/// What `POST /v1/enroll` is sent.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The one-time token.
    pub token: String,
    /// PKCS #10, PEM: signed with the key that the certificate is for. Nothing else in it counts.
    pub csr: String,
}

/// What `POST /v1/renew` is sent, over mutual TLS with the certificate that is to be followed.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS #10, PEM: signed with the key that the certificate is for. Nothing else in it counts.
    pub csr: String,
}

/// What both are answered with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Certified {
    /// PEM: the certificate, and what is between it and the root.
    pub cert: String,
    /// PEM: the authorities by which the gateway is known.
    pub ca: String,
}

/// What certificates are made with.
#[derive(Debug)]
pub struct Enrolling {
    authority: Arc<Authority>,
    served: Arc<Served>,
    /// `https://host:port` of the control port; the first is what tokens name as their issuer.
    addresses: Vec<String>,
    identity_life: Duration,
    enrollment_life: Duration,
}

impl Enrolling {
    /// `port` is the control port's, for addresses that nobody has configured.
    pub(crate) fn new(authority: Arc<Authority>, identity: &Identity, state: &State, port: u16) -> Self {
        let mut addresses = state.advertise.clone();
        if addresses.is_empty() {
            let names =
                if identity.names().is_empty() { &["localhost".to_owned()] } else { identity.names() };
            addresses.extend(names.iter().map(|name| {
                if name.contains(':') {
                    format!("https://[{name}]:{port}")
                } else {
                    format!("https://{name}:{port}")
                }
            }));
        }
        Self {
            authority,
            served: Arc::clone(&identity.served),
            addresses,
            identity_life: state.identity_life,
            enrollment_life: state.enrollment_life,
        }
    }

    /// How long an enrollment may take unless its request says otherwise.
    #[must_use]
    pub const fn life(&self) -> Duration {
        self.enrollment_life
    }

    /// The authority.
    #[must_use]
    pub const fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Where the control port is reached, as tokens say.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn issuer(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }

    /// The token of an invitation that [`Changes::invite`] has recorded.
    ///
    /// # Errors
    /// The authority cannot sign; the gateway's fault.
    pub fn token(
        &self,
        identity: &Name,
        jti: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<String, ChangeError> {
        let invite = Invite {
            issuer: self.issuer().to_owned(),
            identity: identity.clone(),
            jti: jti.to_owned(),
            expires_at,
            controllers: self.addresses.iter().skip(1).cloned().collect(),
            pin: self.served.pin(),
        };
        self.authority.invite(&invite, now).map_err(unable)
    }

    /// Answers `POST /v1/enroll`: of many uses of one token, one gets a certificate that opens anything, and the others
    /// get none at all. `from` is for the audit log.
    ///
    /// # Errors
    /// The token or the request is not good, or nothing can be signed or kept now.
    pub async fn enroll(
        &self,
        changes: &Arc<Changes>,
        request: &EnrollRequest,
        from: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<Certified, ChangeError> {
        let claims = self.authority.verify(request.token.trim(), self.issuer(), now).map_err(refused)?;
        let identity: Name = claims.sub.parse().map_err(|_bad| refused(EnrollmentError::Malformed))?;
        let issued =
            self.authority.issue(&identity, &request.csr, self.identity_life, now).map_err(unable)?;
        changes.redeem(&claims.jti, &identity, issued.credential, from, now).await?;
        Ok(self.certified(issued.chain_pem))
    }

    /// Answers `POST /v1/renew` for whoever presented this certificate. The old one stays good until it ends.
    ///
    /// # Errors
    /// The certificate is not listed (any more), the request is not good, or nothing can be signed or kept now.
    pub async fn renew(
        &self,
        changes: &Arc<Changes>,
        peer: &PeerCertificate,
        request: &RenewRequest,
        from: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<Certified, ChangeError> {
        let identity: Name = peer.identity.parse().map_err(|_bad| refused(EnrollmentError::Malformed))?;
        // As it was written when it was made.
        let identity =
            changes.model().identities.get(&identity).map_or(identity, |stored| stored.name.clone());
        let issued =
            self.authority.issue(&identity, &request.csr, self.identity_life, now).map_err(unable)?;
        changes.renew(&identity, &peer.serial, issued.credential, from, now).await?;
        Ok(self.certified(issued.chain_pem))
    }

    fn certified(&self, cert: String) -> Certified {
        Certified { cert, ca: self.authority.roots_pem().to_owned() }
    }
}

fn refused(error: EnrollmentError) -> ChangeError {
    let (code, status) = match error {
        EnrollmentError::Expired => ("enrollment_expired", 410),
        EnrollmentError::TooLong => ("enrollment_refused", 413),
        _ => ("enrollment_refused", 401),
    };
    ChangeError::client(
        code,
        status,
        format!("the enrollment token is not accepted: {error}"),
        "ask whoever invited you for a new one",
    )
}

fn unable(error: AuthorityError) -> ChangeError {
    if let AuthorityError::Csr(_) = error {
        return ChangeError::client(
            "bad_request",
            400,
            error.to_string(),
            "send PKCS #10 in PEM, made with the key that the certificate is for",
        );
    }
    tracing::error!(%error, "the authority cannot sign");
    ChangeError {
        code: "authority_unavailable",
        status: 503,
        message: "the gateway's authority cannot sign now".to_owned(),
        fault: Fault::Gateway,
        next: "whoever runs the gateway finds the reason in its log".to_owned(),
    }
}

#[cfg(test)]
mod tests;
