//! What opens doors: invitations, certificates that are listed, secrets of tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::name::Name;
use aws_lc_rs::rand;
use serde_json::{Value, json};

use super::error::ChangeError;
use super::kept::{self, Enrollment};
use super::view::View;
use super::{Changes, Plan};
use crate::audit::{self, Actor, AuditAction};
use crate::model::{Credential, Identity, Kind, SecretText, Timestamp, TokenSecret, rfc3339};
use crate::store::Expect;

/// Invitations of one identity that are open at once; the oldest goes for a new one.
const MAX_INVITATIONS: usize = 8;
/// Certificates that an identity gets within [`RENEWAL_WINDOW`]. Each leaves a record in the audit log, which is bounded:
/// nobody may fill it with renewals.
const RENEWALS: usize = 4;
/// In seconds.
const RENEWAL_WINDOW: Timestamp = 60;
/// Certificates of one identity, and secrets of one token, that are listed at once; the oldest goes for a new one.
const MAX_LISTED: usize = 16;
/// Bytes of a generated secret: twice as many hexadecimal digits.
const SECRET_BYTES: usize = 20;
/// What [`Changes::tidy`] removes in one transaction.
const TIDIED: usize = 1000;

/// A one-time permission to get a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub jti: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A new secret of a token. This is the only time that it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Tells it from the token's other ones.
    pub id: String,
    /// The secret.
    pub secret: SecretText,
    /// When it was made.
    pub issued_at: Timestamp,
}

/// Which certificates of an identity are not good any more, and which still are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// The serial numbers of those that were revoked.
    pub serials: Vec<String>,
    /// The serial numbers of those that are good as before.
    pub remaining: Vec<String>,
}

impl Secret {
    /// Makes one of the system's random numbers.
    ///
    /// # Errors
    /// The system has none.
    pub(super) fn generate(now: Timestamp) -> Result<Self, ChangeError> {
        Ok(Self { id: random::<8>()?, secret: SecretText::new(random::<SECRET_BYTES>()?), issued_at: now })
    }

    fn listed(&self) -> TokenSecret {
        TokenSecret {
            id: self.id.clone(),
            secret: self.secret.clone(),
            issued_at: self.issued_at,
            not_after: None,
        }
    }
}

/// An id that no other resource has or will have.
pub(super) fn new_id() -> Result<String, ChangeError> {
    random::<16>()
}

fn random<const N: usize>() -> Result<String, ChangeError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_unspecified| ChangeError::unavailable("there are no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Changes {
    /// Invites an identity to get a certificate.
    ///
    /// # Errors
    /// There is no such identity, it is disabled, or the store does not answer.
    pub async fn invite(
        self: &Arc<Self>,
        actor: &Actor,
        identity: &Name,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Invitation, ChangeError> {
        let jti = new_id()?;
        let expires_at = now.saturating_add(ttl.as_secs());
        let plan = |view: &View| {
            enabled(view, identity)?;
            let mut plan = Plan::nothing(());
            let mut open: Vec<_> = Vec::new();
            for (jti, enrollment) in view.enrollments.iter().filter(|(_, it)| it.identity == *identity) {
                if enrollment.expires_at <= now {
                    plan.writes.push(kept::delete(kept::enrollment_key(jti)));
                } else {
                    open.push((enrollment.created_at, jti));
                }
            }
            open.sort();
            let excess = (open.len() + 1).saturating_sub(MAX_INVITATIONS);
            let old = open.iter().take(excess);
            plan.writes.extend(old.map(|(_, jti)| kept::delete(kept::enrollment_key(jti))));
            let enrollment = Enrollment { identity: identity.clone(), created_at: now, expires_at };
            plan.writes.push(kept::put(kept::enrollment_key(&jti), &enrollment)?);
            plan.expect.push(Expect::Present(kept::resource_key(Kind::Identity, identity)));
            let after = json!({ "jti": jti, "expires_at": rfc3339(expires_at) });
            plan.audit.push(entry(AuditAction::Invite, Kind::Identity, identity, None, Some(after)));
            Ok(plan)
        };
        self.commit(actor, now, plan).await?;
        Ok(Invitation { jti, expires_at })
    }

    /// Uses an invitation up and lists the certificate that was issued for it: of many attempts at once, one succeeds.
    /// `from` is where whoever uses it connected from.
    ///
    /// # Errors
    /// It was used before, has ended or is another identity's; the identity is gone or disabled; or the store does not
    /// answer.
    pub async fn redeem(
        self: &Arc<Self>,
        jti: &str,
        identity: &Name,
        credential: Credential,
        from: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        let plan = |view: &View| {
            let enrollment = view.enrollments.get(jti).filter(|it| it.identity == *identity);
            let enrollment = enrollment.ok_or_else(|| {
                ChangeError::client(
                    "enrollment_used",
                    409,
                    "this invitation was used already, or withdrawn",
                    "ask whoever invited you for a new one; if you did not use it yourself, say so",
                )
            })?;
            if enrollment.expires_at <= now {
                return Err(ChangeError::client(
                    "enrollment_expired",
                    410,
                    "this invitation has expired",
                    "ask whoever invited you for a new one",
                ));
            }
            enabled(view, identity)?;
            let mut plan = Plan::nothing(());
            let key = kept::enrollment_key(jti);
            plan.expect.push(Expect::Present(key.clone()));
            plan.writes.push(kept::delete(key));
            list(&mut plan, view, identity, &credential, None, now)?;
            plan.audit.push(entry(
                AuditAction::Enroll,
                Kind::Identity,
                identity,
                Some(json!({ "jti": jti })),
                Some(shown(&credential)),
            ));
            Ok(plan)
        };
        self.commit(&itself(identity, from), now, plan).await.map(drop)
    }

    /// Lists a certificate that follows another one. Both are good until they end. `from` is where whoever has it
    /// connected from.
    ///
    /// # Errors
    /// The old one is not listed (any more) or has ended, the identity is gone or disabled, or the store does not
    /// answer.
    pub async fn renew(
        self: &Arc<Self>,
        identity: &Name,
        old_serial: &str,
        credential: Credential,
        from: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        let plan = |view: &View| {
            enabled(view, identity)?;
            let listed = view.model.credentials.get(identity).map_or(&[][..], |held| &held[..]);
            let old = listed.iter().find(|it| it.serial == old_serial && it.not_after > now);
            let old = old.ok_or_else(|| {
                ChangeError::client(
                    "revoked",
                    403,
                    format!("certificate {old_serial} of `{identity}` is not good any more"),
                    "enroll again with a new invitation",
                )
            })?;
            let lately = listed.iter().filter(|it| it.issued_at + RENEWAL_WINDOW > now).count();
            if lately >= RENEWALS {
                return Err(ChangeError::client(
                    "rate_limited",
                    429,
                    format!("`{identity}` has been given {lately} certificates within a minute"),
                    "use the newest of them; a certificate is renewed when two thirds of its life have passed",
                ));
            }
            let mut plan = Plan::nothing(());
            plan.expect.push(Expect::Present(kept::credential_key(identity, old_serial)));
            let is_listed = |serial: &&String| listed.iter().any(|it| it.serial == **serial);
            let before = old.renewed_from.iter().filter(is_listed).chain([&old.serial]).cloned();
            let credential = Credential { renewed_from: before.collect(), ..credential.clone() };
            list(&mut plan, view, identity, &credential, Some(old_serial), now)?;
            let (before, after) = (Some(shown(old)), Some(shown(&credential)));
            plan.audit.push(entry(AuditAction::Renew, Kind::Identity, identity, before, after));
            Ok(plan)
        };
        self.commit(&itself(identity, from), now, plan).await.map(drop)
    }

    /// Revokes one certificate of an identity with those that were renewed from it, or all of them with its open
    /// invitations.
    ///
    /// # Errors
    /// There is no such identity or certificate, or the store does not answer.
    pub async fn revoke_credentials(
        self: &Arc<Self>,
        actor: &Actor,
        identity: &Name,
        serial: Option<&str>,
        now: Timestamp,
    ) -> Result<Revoked, ChangeError> {
        let plan = |view: &View| {
            known(view, Kind::Identity, identity)?;
            let listed = view.model.credentials.get(identity).map_or(&[][..], |held| &held[..]);
            if let Some(serial) = serial.filter(|serial| listed.iter().all(|it| it.serial != **serial)) {
                return Err(ChangeError::client(
                    "not_found",
                    404,
                    format!("`{identity}` has no certificate {serial}"),
                    format!("see which it has: GET /v1/identities/{identity}"),
                ));
            }
            let mut plan = Plan::nothing(Revoked::default());
            for credential in listed {
                if serial.is_some_and(|serial| !credential.rests_on(serial)) {
                    if now < credential.not_after {
                        plan.result.remaining.push(credential.serial.clone());
                    }
                    continue;
                }
                plan.result.serials.push(credential.serial.clone());
                plan.writes.push(kept::delete(kept::credential_key(identity, &credential.serial)));
                let before = Some(shown(credential));
                plan.audit.push(entry(AuditAction::RevokeCredential, Kind::Identity, identity, before, None));
            }
            if serial.is_none() {
                remove_invitations(&mut plan, view, identity);
            }
            Ok(plan)
        };
        self.commit(actor, now, plan).await.map(|(revoked, _)| revoked)
    }

    /// Notes that somebody was given a copy of everything.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn note_backup(self: &Arc<Self>, actor: &Actor, now: Timestamp) -> Result<(), ChangeError> {
        let plan = |_: &View| {
            let mut plan = Plan::nothing(());
            plan.audit.push(audit::Entry {
                action: AuditAction::Backup,
                about: None,
                before: None,
                after: None,
            });
            Ok(plan)
        };
        self.commit(actor, now, plan).await.map(drop)
    }

    /// Gives a token that has no secret one.
    ///
    /// # Errors
    /// There is no such token, it has a secret, or the store does not answer.
    pub async fn issue_secret(
        self: &Arc<Self>,
        actor: &Actor,
        token: &Name,
        now: Timestamp,
    ) -> Result<Secret, ChangeError> {
        let secret = Secret::generate(now)?;
        let plan = |view: &View| {
            known(view, Kind::Token, token)?;
            if view.model.secrets.contains_key(token) {
                return Err(ChangeError::client(
                    "exists",
                    409,
                    format!("token `{token}` has a secret"),
                    "rotate it instead",
                ));
            }
            let mut plan = Plan::nothing(());
            add_secret(&mut plan, token, &secret, AuditAction::IssueSecret)?;
            Ok(plan)
        };
        self.commit(actor, now, plan).await?;
        Ok(secret)
    }

    /// Gives a token another secret. Those that it has are good for this long from now on, unless they end before.
    /// Returns the new one, and when the old ones end if there are any.
    ///
    /// # Errors
    /// There is no such token, or the store does not answer.
    pub async fn rotate_secret(
        self: &Arc<Self>,
        actor: &Actor,
        token: &Name,
        window: Duration,
        now: Timestamp,
    ) -> Result<(Secret, Option<Timestamp>), ChangeError> {
        let secret = Secret::generate(now)?;
        let until = now.saturating_add(window.as_secs());
        let plan = |view: &View| {
            known(view, Kind::Token, token)?;
            let mut old = view.model.secrets.get(token).map_or_else(Vec::new, |held| held.to_vec());
            old.sort_by_key(|secret| std::cmp::Reverse(secret.issued_at));
            let mut plan = Plan::nothing(None);
            for (index, mut secret) in old.into_iter().enumerate() {
                let end = secret.not_after.map_or(until, |end| end.min(until));
                let key = kept::secret_key(token, &secret.id);
                if end <= now || index + 1 >= MAX_LISTED {
                    plan.writes.push(kept::delete(key));
                } else {
                    secret.not_after = Some(end);
                    plan.result = plan.result.max(Some(end));
                    plan.writes.push(kept::put(key, &secret)?);
                }
            }
            add_secret(&mut plan, token, &secret, AuditAction::RotateSecret)?;
            Ok(plan)
        };
        let (old_until, _) = self.commit(actor, now, plan).await?;
        Ok((secret, old_until))
    }

    /// Revokes one secret of a token, or all of them. Returns how many.
    ///
    /// # Errors
    /// There is no such token or secret, or the store does not answer.
    pub async fn revoke_secret(
        self: &Arc<Self>,
        actor: &Actor,
        token: &Name,
        id: Option<&str>,
        now: Timestamp,
    ) -> Result<usize, ChangeError> {
        let plan = |view: &View| {
            known(view, Kind::Token, token)?;
            let listed = view.model.secrets.get(token).map_or(&[][..], |held| &held[..]);
            let mut plan = Plan::nothing(0);
            for secret in listed.iter().filter(|it| id.is_none_or(|id| it.id == id)) {
                plan.result += 1;
                plan.writes.push(kept::delete(kept::secret_key(token, &secret.id)));
                let before = Some(json!({ "id": secret.id, "issued_at": rfc3339(secret.issued_at) }));
                plan.audit.push(entry(AuditAction::RevokeSecret, Kind::Token, token, before, None));
            }
            match id {
                Some(id) if plan.result == 0 => Err(ChangeError::client(
                    "not_found",
                    404,
                    format!("token `{token}` has no secret {id}"),
                    "the audit log says which it had",
                )),
                _ => Ok(plan),
            }
        };
        self.commit(actor, now, plan).await.map(|(count, _)| count)
    }

    /// Removes what has ended: invitations, certificates, secrets. A part of it if it is much; what is left is for the
    /// next time. That it has ended was decided when it was made, so it is no change for the audit log.
    pub async fn tidy(self: &Arc<Self>, now: Timestamp) {
        let plan = |view: &View| {
            let mut keys: Vec<String> = Vec::new();
            let ended = view.enrollments.iter().filter(|(_, it)| it.expires_at <= now);
            keys.extend(ended.map(|(jti, _)| kept::enrollment_key(jti)));
            for (identity, listed) in &view.model.credentials {
                let ended = listed.iter().filter(|it| it.not_after <= now);
                keys.extend(ended.map(|it| kept::credential_key(identity, &it.serial)));
            }
            for (token, secrets) in &view.model.secrets {
                let ended = secrets.iter().filter(|it| it.not_after.is_some_and(|end| end <= now));
                keys.extend(ended.map(|it| kept::secret_key(token, &it.id)));
            }
            keys.truncate(TIDIED);
            let mut plan = Plan::nothing(());
            plan.writes = keys.into_iter().map(kept::delete).collect();
            Ok(plan)
        };
        if let Err(error) = self.commit(&Actor::local(), now, plan).await {
            tracing::debug!(%error, "what has ended stays listed for now");
        }
    }
}

/// Lists a certificate; those that have ended go, and the oldest if there are too many, but not `kept`.
fn list<T>(
    plan: &mut Plan<T>,
    view: &View,
    identity: &Name,
    new: &Credential,
    keep: Option<&str>,
    now: Timestamp,
) -> Result<(), ChangeError> {
    let mut listed: Vec<&Credential> =
        view.model.credentials.get(identity).into_iter().flat_map(|held| held.iter()).collect();
    listed.retain(|it| it.serial != new.serial);
    listed.sort_by_key(|it| (Some(it.serial.as_str()) == keep, it.issued_at));
    let excess = (listed.len() + 1).saturating_sub(MAX_LISTED);
    for (index, credential) in listed.into_iter().enumerate() {
        if index < excess || credential.not_after <= now {
            plan.writes.push(kept::delete(kept::credential_key(identity, &credential.serial)));
        }
    }
    plan.expect.push(Expect::Present(kept::resource_key(Kind::Identity, identity)));
    plan.writes.push(kept::put(kept::credential_key(identity, &new.serial), new)?);
    Ok(())
}

/// Adds a secret to what is planned.
pub(super) fn add_secret<T>(
    plan: &mut Plan<T>,
    token: &Name,
    secret: &Secret,
    action: AuditAction,
) -> Result<(), ChangeError> {
    plan.writes.push(kept::put(kept::secret_key(token, &secret.id), &secret.listed())?);
    let after = json!({ "id": secret.id, "issued_at": rfc3339(secret.issued_at) });
    plan.audit.push(entry(action, Kind::Token, token, None, Some(after)));
    Ok(())
}

/// Removes what belongs to a resource that goes.
pub(super) fn remove_all<T>(plan: &mut Plan<T>, view: &View, kind: Kind, name: &Name) {
    match kind {
        Kind::Identity => {
            let listed = view.model.credentials.get(name).into_iter().flat_map(|held| held.iter());
            plan.writes.extend(listed.map(|it| kept::delete(kept::credential_key(name, &it.serial))));
            remove_invitations(plan, view, name);
        }
        Kind::Token => {
            let listed = view.model.secrets.get(name).into_iter().flat_map(|held| held.iter());
            plan.writes.extend(listed.map(|it| kept::delete(kept::secret_key(name, &it.id))));
        }
        Kind::Config | Kind::Service | Kind::ServicePolicy | Kind::Route => {}
    }
}

fn remove_invitations<T>(plan: &mut Plan<T>, view: &View, identity: &Name) {
    let open = view.enrollments.iter().filter(|(_, it)| it.identity == *identity);
    plan.writes.extend(open.map(|(jti, _)| kept::delete(kept::enrollment_key(jti))));
}

fn known(view: &View, kind: Kind, name: &Name) -> Result<(), ChangeError> {
    let is_known = view.metas.contains_key(&(kind, name.clone()));
    if is_known { Ok(()) } else { Err(ChangeError::not_found(kind, name)) }
}

fn enabled<'a>(view: &'a View, identity: &Name) -> Result<&'a Identity, ChangeError> {
    let found = view.model.identities.get(identity);
    let found = found.ok_or_else(|| ChangeError::not_found(Kind::Identity, identity))?;
    if found.disabled {
        return Err(ChangeError::client(
            "disabled",
            403,
            format!("the identity `{identity}` is disabled"),
            "whoever may change resources can enable it",
        ));
    }
    Ok(found)
}

fn itself(identity: &Name, address: Option<SocketAddr>) -> Actor {
    Actor { name: format!("identity:{identity}"), address }
}

fn shown(credential: &Credential) -> Value {
    let Credential { serial, issued_at, not_after, renewed_from } = credential;
    let mut shown =
        json!({ "serial": serial, "issued_at": rfc3339(*issued_at), "not_after": rfc3339(*not_after) });
    if let (Value::Object(fields), false) = (&mut shown, renewed_from.is_empty()) {
        fields.insert("renewed_from".to_owned(), json!(renewed_from));
    }
    shown
}

fn entry(
    action: AuditAction,
    kind: Kind,
    name: &Name,
    before: Option<Value>,
    after: Option<Value>,
) -> audit::Entry {
    audit::Entry { action, about: Some((kind, name.clone())), before, after }
}
