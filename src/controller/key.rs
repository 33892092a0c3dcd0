//! The key under which data is hashed. It lives in a Secret and is followed for as long as this process runs: one that
//! another replica made, that was rotated or restored counts at once, and one that was lost is written again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::references;
use crate::store::scope::{Reference, ReferenceKind};
use crate::target::apply;
use crate::target::hash::InstallationKey;
use crate::target::names;

const KEY_ENTRY: &str = "key";
/// UID of the installation, in a Secret that was written again. Without it, the Secret's own counts.
const INSTALLATION_ENTRY: &str = "installation";
const KEY_BYTES: usize = 32;
/// Reads and writes while others do the same.
const ROUNDS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks, whatever is done to the Secret.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may be away before it is written again: who rotates it deletes the old one first.
const AWAY: Duration = Duration::from_secs(5);

/// Follows the Secret until the process ends. Who leads writes a lost one again.
pub async fn follow(ctx: Arc<Context>, namespace: String) -> &'static str {
    let changed = Notify::new();
    let reference = Reference {
        kind: ReferenceKind::Secret,
        namespace: namespace.clone(),
        name: names::INSTALLATION_KEY.into(),
    };
    tokio::select! {
        () = references::follow_any(&ctx, &reference, |_| changed.notify_one()) => {}
        () = keep(&ctx, &namespace, &changed) => {}
    }
    "watch of the installation's key"
}

async fn keep(ctx: &Context, namespace: &str, changed: &Notify) {
    loop {
        changed.notified().await;
        while let Err(error) = look(ctx, namespace).await {
            tracing::warn!(error, "the installation's key is not known as it is; tried again");
            sleep(PAUSE).await;
        }
        sleep(PAUSE).await;
    }
}

async fn look(ctx: &Context, namespace: &str) -> Result<(), String> {
    let found = read(ctx, namespace).await?;
    if let Some(key) = found.as_ref().and_then(key_of) {
        adopt(ctx, key);
        return Ok(());
    }
    if found.is_none() {
        sleep(AWAY).await;
    }
    // Before there is a key, only the beginning of a term makes one.
    if ctx.fence.is_open() && ctx.hasher().is_some() {
        return ensure(ctx, namespace).await;
    }
    Ok(())
}

/// Has the key that is stored. One that is not stored any more is written as it was, so that all hashes stay valid; where
/// there never was one, it is made.
///
/// # Errors
/// What the API server did not do, as a sentence.
pub async fn ensure(ctx: &Context, namespace: &str) -> Result<(), String> {
    let secret = format!("Secret {namespace}/{}", names::INSTALLATION_KEY);
    for _ in 0..ROUNDS {
        let Some(found) = read(ctx, namespace).await? else {
            if let Some(key) = create(ctx, namespace).await? {
                adopt(ctx, key);
                return Ok(());
            }
            continue;
        };
        if let Some(key) = key_of(&found) {
            adopt(ctx, key);
            return Ok(());
        }
        let error = format!(
            "{secret} has no entry '{KEY_ENTRY}' of {KEY_BYTES} bytes; delete it, and it is written again"
        );
        if ctx.hasher().is_none() {
            return Err(error);
        }
        tracing::warn!(error, "the installation's key stays the one of before");
        return Ok(());
    }
    Err(format!("{secret} appears and disappears"))
}

async fn read(ctx: &Context, namespace: &str) -> Result<Option<Secret>, String> {
    let got = apply::get::<Secret>(&ctx.client, namespace, names::INSTALLATION_KEY).await;
    got.map_err(|error| {
        format!(
            "cannot read Secret {namespace}/{}: {error}",
            names::INSTALLATION_KEY
        )
    })
}

/// `None` if another replica was faster, or our own request was repeated.
async fn create(ctx: &Context, namespace: &str) -> Result<Option<InstallationKey>, String> {
    let failed = |why: &str| {
        format!(
            "cannot create Secret {namespace}/{}: {why}",
            names::INSTALLATION_KEY
        )
    };
    let hasher = ctx.hasher();
    let secret = secret_of(hasher.as_ref().map(|hasher| hasher.key()));
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    match timeout(TIMEOUT, api.create(&PostParams::default(), &secret)).await {
        Ok(Ok(created)) => Ok(key_of(&created)),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
        Ok(Err(error)) => Err(failed(&apply::describe(&error))),
        Err(_) => Err(failed("it took too long")),
    }
}

fn adopt(ctx: &Context, key: InstallationKey) {
    let first = ctx.hasher().is_none();
    if ctx.set_key(key) && !first {
        tracing::warn!(
            "the installation's key is another one now; targets stay as they are, and are signed under it when they are \
             refreshed"
        );
    }
}

/// A Secret with this key, or with one that is made now.
fn secret_of(key: Option<&InstallationKey>) -> Secret {
    let entry = |name: &str, bytes: &[u8]| (name.to_owned(), ByteString(bytes.to_vec()));
    let data = match key {
        Some(key) => vec![
            entry(KEY_ENTRY, key.bytes()),
            entry(INSTALLATION_ENTRY, key.installation().as_bytes()),
        ],
        None => vec![entry(KEY_ENTRY, &rand::random::<[u8; KEY_BYTES]>())],
    };
    Secret {
        metadata: ObjectMeta {
            name: Some(names::INSTALLATION_KEY.into()),
            labels: Some([(names::LABEL_RESERVED.into(), "true".into())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data.into_iter().collect()),
        immutable: Some(true),
        ..Secret::default()
    }
}

/// The key that a Secret holds, if it is one.
fn key_of(secret: &Secret) -> Option<InstallationKey> {
    let data = secret.data.as_ref()?;
    let bytes = data.get(KEY_ENTRY).filter(|key| key.0.len() >= KEY_BYTES)?;
    let installation = data.get(INSTALLATION_ENTRY);
    let installation = installation.and_then(|uid| String::from_utf8(uid.0.clone()).ok());
    let installation = installation.or_else(|| secret.uid()).unwrap_or_default();
    Some(InstallationKey::new(&bytes.0, &installation))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(key: Option<&InstallationKey>, uid: &str) -> Secret {
        let mut secret = secret_of(key);
        secret.metadata.uid = Some(uid.into());
        secret
    }

    #[test]
    fn a_key_that_is_written_again_makes_the_same_hashes() {
        let first = key_of(&stored(None, "first")).unwrap();
        assert_eq!(first.installation(), "first");
        let again = key_of(&stored(Some(&first), "second")).unwrap();
        assert!(again == first);
    }

    #[test]
    fn each_key_is_another_and_a_copy_is_another_installation() {
        let secret = stored(None, "first");
        let other = key_of(&stored(None, "first")).unwrap();
        let first = key_of(&secret).unwrap();
        assert!(first.bytes() != other.bytes());
        let mut copy = secret;
        copy.metadata.uid = Some("copy".into());
        assert!(key_of(&copy).unwrap() != first);
    }

    #[test]
    fn a_secret_without_a_whole_key_is_none() {
        let mut secret = stored(None, "first");
        let data = secret.data.as_mut().unwrap();
        data.get_mut(KEY_ENTRY).unwrap().0.pop();
        assert!(key_of(&secret).is_none());
        secret.data = None;
        assert!(key_of(&secret).is_none());
    }
}
