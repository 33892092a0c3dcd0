//! Generic targets (`target.manifest`) in the course of a sync.

use std::sync::Arc;

use kube::core::DynamicObject;

use super::brake;
use super::context::{Context, reference};
use super::index::ObjectKey;
use super::outcome::Failure;
use super::status::READY;
use super::targets::State;
use crate::api::external_secret::{ExternalSecret, ManifestReference};
use crate::memory;
use crate::target::apply::{Applied, ApplyError};
use crate::target::manifest;
use crate::target::manifest_apply::{self, Wrote};
use crate::target::order::Looked;
use crate::target::plan::{Outcome, Wanted};

/// What is known of a generic target. Nobody watches it: it is looked at when a refresh is due, and one
/// that was missing is looked for.
#[must_use]
pub fn state(object: &ExternalSecret) -> State {
    let missing = manifest::ready(Outcome::Missing).0;
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let is_missing = conditions
        .filter(|condition| condition.type_ == READY)
        .any(|condition| condition.reason.as_deref() == Some(missing));
    if is_missing { State::Absent } else { State::Intact }
}

/// It as it is, before the values are read.
///
/// # Errors
/// If the API server does not give it.
pub async fn look(
    ctx: &Context,
    key: &ObjectKey,
    object: &ExternalSecret,
) -> Result<Option<DynamicObject>, Failure> {
    let Some(manifest) = object.spec.manifest() else {
        return Ok(None);
    };
    let looked = manifest_apply::look(&ctx.client, &ctx.kinds, object, manifest);
    memory::getting(&key.namespace, looked).await.map_err(failure)
}

fn failure(error: ApplyError) -> Failure {
    match error {
        ApplyError::Refused(message) => Failure::Own(format!("could not update resource: {message}")),
        error => Failure::from(error),
    }
}

/// Writes it.
///
/// # Errors
/// Why it was not written.
pub async fn write(
    ctx: &Arc<Context>,
    object: &ExternalSecret,
    content: Wanted<'_>,
    target: (&ManifestReference, Looked<DynamicObject>),
) -> Result<Applied, Failure> {
    let (manifest, client) = (target.0, &ctx.client);
    let may_go = || brake::ask(ctx, object);
    let done = manifest_apply::apply(client, &ctx.fence, &ctx.kinds, object, content, target, &may_go)
        .await
        .map_err(failure)?;
    let (reason, verb) = match done.wrote {
        Wrote::Nothing => ("", ""),
        Wrote::Created => ("Created", "created"),
        Wrote::Updated => ("Updated", "updated"),
        Wrote::Deleted => ("Deleted", "deleted due to DeletionPolicy=Delete"),
    };
    if done.wrote != Wrote::Nothing {
        let note = format!("{} {} {verb}", manifest.kind, object.target_name());
        ctx.recorder.send(reference(object), false, reason, &note);
    }
    Ok(Applied {
        outcome: done.outcome,
        secret: None,
        wrote: done.wrote != Wrote::Nothing,
        created: done.wrote == Wrote::Created,
        deleted: done.wrote == Wrote::Deleted,
        binding: None,
        undone: done.undone,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_target_is_looked_for_and_any_other_waits_for_its_refresh() {
        for (reason, wanted) in [
            ("ResourceMissing", State::Absent),
            ("ResourceSynced", State::Intact),
            ("ResourceSyncedError", State::Intact),
        ] {
            let object = serde_json::from_value(json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": reason}]},
            }));
            assert_eq!(state(&object.unwrap()), wanted, "{reason}");
        }
    }
}
