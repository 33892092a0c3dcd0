//! Judging stores: the connection that a store asks for, its server's health, and a login.

use std::sync::{Arc, PoisonError, Weak};

use super::connection::Connection;
use super::credentials::{CredentialError, Identity};
use super::login::{Fault, LoginError};
use super::settings::{self, Ca, Settings};
use super::{Entry, Form, Observed, Source, Store, Stores, Verdict, close_later};
use crate::api::store::StoreKey;
use crate::secret::SecretBytes;
use crate::vault::error::VaultError;
use crate::vault::transport::Server;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    /// What it needs of the cluster is not to be had.
    #[error(transparent)]
    Cluster(#[from] CredentialError),
    /// It cannot be made of that.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl Stores {
    /// Takes note of a store that cannot be read: it serves nobody, whatever it was before. The message is that of its
    /// condition; its class says whether that is ours to tell.
    pub fn refuse(&self, key: &StoreKey, form: Form, class: Option<&str>, message: String) -> Observed {
        let entries = self.entries();
        if entries.get(key).is_some_and(|entry| *entry.form() == form) {
            return Observed::Same;
        }
        let entry = if settings::is_of_another(class, &self.rules.class) {
            Entry::OtherClass(form)
        } else {
            Entry::Invalid { form, message }
        };
        Self::put(entries, key, entry)
    }

    /// Checks a store: its server's health, and a login. `None` if it is not ours to judge.
    /// `afresh` forgets a refused login first, because something it depends on changed.
    pub async fn validate(self: &Arc<Self>, key: &StoreKey, afresh: bool) -> Option<Verdict> {
        let store = match self.entries().get(key)? {
            Entry::OtherClass(_) => return None,
            Entry::Invalid { message, .. } => {
                return Some(Verdict::NotReady {
                    reason: "InvalidProviderConfig",
                    message: message.clone(),
                });
            }
            Entry::Served { store, .. } => store.clone(),
        };
        let verdict = self.judge(&store, afresh).await;
        store.live().verdict = Some(verdict.clone());
        Some(verdict)
    }

    async fn judge(self: &Arc<Self>, store: &Arc<Store>, afresh: bool) -> Verdict {
        let invalid = |message: String| Verdict::NotReady {
            reason: "InvalidProviderConfig",
            message,
        };
        let settings = match &store.source {
            Source::Vault(settings) => settings,
            Source::Fake(fake) if fake.fails() => {
                return invalid(
                    "unable to validate store: spec.provider.fake.validationResult says so".into(),
                );
            }
            Source::Fake(_) => return Verdict::Ready,
        };
        let connection = match self.connect(store, settings).await {
            Ok(connection) => connection,
            Err(ConnectError::Cluster(CredentialError::Unreachable(message))) => {
                return Verdict::Unproven(message);
            }
            Err(error) => return invalid(error.to_string()),
        };
        let url = connection.url().to_string();
        if let Err(down) = connection.validate().await {
            return Verdict::Outage { url, down };
        }
        if settings.referent {
            return Verdict::Ready;
        }
        let session = match self.session(store, settings, Identity { referent: None }) {
            Ok(session) => session,
            Err(error) => return invalid(error),
        };
        if afresh {
            session.login().forget_refusal().await;
        }
        session.login().refresh_given().await;
        match session.login().ensure().await {
            Ok(()) => Verdict::Ready,
            Err(LoginError::Outage(down)) => Verdict::Outage { url, down },
            Err(LoginError::Refused(refusal)) if refusal.fault == Fault::Cluster => {
                Verdict::Unproven(refusal.message)
            }
            Err(LoginError::Refused(refusal)) => Verdict::NotReady {
                reason: refusal.fault.reason(),
                message: refusal.message,
            },
            // No fault of the store, which goes on with what it has.
            Err(LoginError::RateLimited) if store.was_ready() => Verdict::Ready,
            Err(LoginError::RateLimited) => Verdict::NotReady {
                reason: "VaultRateLimited",
                message: "Vault limits the rate of requests (HTTP 429); it is asked again as it says".into(),
            },
        }
    }

    /// The connection of a store; made anew when its certificates changed.
    async fn connect(
        self: &Arc<Self>,
        store: &Store,
        settings: &Settings,
    ) -> Result<Arc<Connection>, ConnectError> {
        let server = self.server(settings).await?;
        let connection = self.shared_connection(server)?;
        let mut live = store.live();
        if live
            .connection
            .as_ref()
            .is_none_or(|old| !Arc::ptr_eq(old, &connection))
        {
            close_later(std::mem::take(&mut live.sessions).into_values().collect());
            live.connection = Some(connection.clone());
        }
        Ok(connection)
    }

    /// Where and how to reach the server of a store, with what the cluster holds of it at this moment.
    async fn server(&self, settings: &Settings) -> Result<Server, CredentialError> {
        let none = Identity { referent: None };
        let ca_pem = match &settings.ca {
            Ca::System => None,
            Ca::Pem(pem) => Some(pem.clone()),
            Ca::Secret(key) => Some(self.credentials.secret(key, &none).await?.expose().to_vec()),
            Ca::ConfigMap(key) => Some(self.credentials.config_map(key).await?.into_bytes()),
        };
        let client_pem = match &settings.client_certificate {
            None => None,
            Some(shown) => {
                let certificate = self.credentials.secret(&shown.certificate, &none).await?;
                let key = self.credentials.secret(&shown.key, &none).await?;
                Some(SecretBytes::new(
                    [certificate.expose(), b"\n", key.expose()].concat(),
                ))
            }
        };
        Ok(Server {
            url: settings.url.clone(),
            namespace: settings.namespace.clone(),
            headers: settings.headers.clone(),
            ca_pem,
            client_pem,
            consistency: settings.consistency,
        })
    }

    fn shared_connection(self: &Arc<Self>, server: Server) -> Result<Arc<Connection>, VaultError> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, weak| weak.strong_count() > 0);
        if let Some(connection) = connections.get(&server).and_then(Weak::upgrade) {
            return Ok(connection);
        }
        let connection = Connection::new(server.clone(), self.rules.in_flight, self.metrics.clone())?;
        connections.insert(server, Arc::downgrade(&connection));
        let (stores, weak) = (Arc::downgrade(self), Arc::downgrade(&connection));
        let all = stores.clone();
        let another = move || all.upgrade().is_some_and(|all| all.one_answers());
        tokio::spawn(Connection::watch_over(weak.clone(), another));
        let mut health = connection.subscribe();
        tokio::spawn(async move {
            while health.changed().await.is_ok() {
                let Some(stores) = stores.upgrade() else { return };
                stores.tell(|store| store.uses(&weak));
            }
        });
        Ok(connection)
    }
}
