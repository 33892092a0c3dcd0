//! The end of a token. A lease ends with the token that asked for it: a token on which leases hang is not revoked, and
//! one that was replaced is renewed until no value of its leases is held any more.

use tokio::time::Instant;

use super::state::{Held, Retired};
use super::{Login, LoginError, RENEW_AGAIN, answered};
use crate::store::connection::CallError;
use crate::vault::auth;

impl Login {
    /// Whether a renewal brought a life worth having.
    pub(super) async fn renewed(&self, held: &mut Held) -> Result<bool, LoginError> {
        match answered(self.about("renew", &held.lease.token, auth::renew).await)? {
            Ok(lease) if lease.ttl >= held.worth_having() => {
                held.renewed(lease);
                return Ok(true);
            }
            // By its maximum: log in anew while it still lives.
            Ok(lease) => held.capped(lease.ttl),
            Err(error) if error.is_dead_token() => held.tenure.end(),
            Err(_) => held.tenure.let_go(held.ends),
        }
        Ok(false)
    }

    /// Takes note that a new login did not help either: the old token was not at fault. It goes on if leases hang on
    /// it, so that an object that may not read its path costs the others nothing.
    pub async fn not_helped(&self, serial: u64) {
        let mut state = self.state.lock().await;
        if state.serial != serial {
            return;
        }
        let Some(old) = state.replaced_by(serial) else {
            return;
        };
        match self.about("lookup", &old.lease.token, auth::look_up).await {
            Ok(_) => {}
            Err(CallError::Vault(error)) if error.is_dead_token() => return old.tenure.end(),
            Err(_) => {
                state.retired.push(Retired {
                    held: old,
                    by: serial,
                });
                return;
            }
        }
        let new = state.held.replace(old);
        state.serial += 1;
        let needless = state.retire(new);
        drop(state);
        self.revoke(needless).await;
    }

    /// Renews the tokens that were replaced, and lets go of those that nobody needs any more.
    pub(super) async fn keep_retired(&self) {
        // Nobody who reads waits meanwhile.
        let all = std::mem::take(&mut self.state.lock().await.retired);
        let mut kept = Vec::with_capacity(all.len());
        for mut old in all {
            if !old.held.is_alive() {
                continue;
            }
            if old.held.is_needless() {
                self.revoke(Some(old.held)).await;
                continue;
            }
            self.prolong(&mut old.held).await;
            kept.push(old);
        }
        let mut state = self.state.lock().await;
        kept.append(&mut state.retired);
        state.retired = kept;
    }

    async fn prolong(&self, held: &mut Held) {
        let now = Instant::now();
        if !held.lease.renewable || !held.is_used() || held.renew_at.is_none_or(|at| at > now) {
            return;
        }
        held.renew_at = Some(now + RENEW_AGAIN);
        match self.renewed(held).await {
            Ok(true) => {}
            // Refused or capped: those who hold its leases know when it ends, and are read anew before.
            Ok(false) => held.lease.renewable = false,
            Err(error) => {
                let error = error.to_string();
                tracing::debug!(error, "token of leases not renewed; it is tried again");
            }
        }
    }

    /// Revokes the token, if a login of ours obtained it and no lease hangs on it. For shutdown, and for stores that
    /// are gone. A token with leases is left to its end: whoever leads next reads their values anew before.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        let retired = std::mem::take(&mut state.retired);
        let all = retired.into_iter().map(|old| old.held).chain(state.held.take());
        let needless: Vec<Held> = all.filter(|held| !held.tenure.is_leased()).collect();
        drop(state);
        for held in needless {
            self.revoke(Some(held)).await;
        }
    }

    pub(super) async fn revoke(&self, held: Option<Held>) {
        let Some(held) = held else { return };
        if !held.lease.revocable || held.lease.uses == Some(0) {
            return;
        }
        if let Err(error) = self.about("revoke", &held.lease.token, auth::revoke).await {
            let (server, error) = (self.connection.url(), error.to_string());
            tracing::debug!(server, error, "token not revoked; it ends with its life");
        }
    }
}
