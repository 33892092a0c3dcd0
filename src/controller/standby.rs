//! What a standby says: who leads, since when, and whether that is an installation of another kind, behind which this
//! one would wait for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;

use super::events::Recorder;
use crate::telemetry::metrics::Metrics;

/// Annotations of the Lease, by which a standby knows what its holder serves.
const CLASS: &str = "keyferry.dev/controller-class";
const NAMESPACES: &str = "keyferry.dev/namespaces";
/// In place of a list of namespaces.
const ALL: &str = "*";
/// Longest part of another's name, class or list that is repeated.
const SHOWN: usize = 200;

/// What an installation serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serves {
    class: String,
    namespaces: String,
}

impl Serves {
    /// This class, and these namespaces; none means all.
    #[must_use]
    pub fn new(class: &str, namespaces: &[String]) -> Self {
        let namespaces = match namespaces {
            [] => ALL.to_owned(),
            some => some.join(","),
        };
        Self {
            class: class.to_owned(),
            namespaces,
        }
    }

    /// As the holder of a Lease wrote it; none if it is another operator, or an older one.
    fn of(lease: &Lease) -> Option<Self> {
        let annotations = lease.metadata.annotations.as_ref()?;
        Some(Self {
            class: annotations.get(CLASS)?.clone(),
            namespaces: annotations.get(NAMESPACES)?.clone(),
        })
    }

    /// Writes it down.
    pub fn note(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(CLASS.into(), self.class.clone());
        annotations.insert(NAMESPACES.into(), self.namespaces.clone());
    }

    fn sentence(&self) -> String {
        let namespaces = match self.namespaces.as_str() {
            ALL => "all namespaces".to_owned(),
            some => format!("the namespaces {}", shown(some)),
        };
        format!("class {} in {namespaces}", shown(&self.class))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// What there is to say of a Lease that another holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    leader: String,
    since: String,
    standing_by: String,
    /// Set if the other serves something else.
    apart: Option<String>,
}

fn word(lease: &Lease, own: &Serves) -> Option<Word> {
    let spec = lease.spec.as_ref()?;
    let leader = spec.holder_identity.as_deref().filter(|name| !name.is_empty())?;
    let leader = shown(leader);
    let since = spec.acquire_time.as_ref().map(|time| time.0.to_string());
    let since = since.unwrap_or_else(|| "an unknown time".into());
    let standing_by = format!("standing by: {leader} leads since {since}");
    let name = lease.metadata.name.as_deref().unwrap_or_default();
    let apart = Serves::of(lease).filter(|other| other != own).map(|other| {
        format!(
            "the Lease {name} is held by {leader}, which serves {}; this one is to serve {}, and does nothing while the \
             other lives: give it a Lease of its own (--leader-election-id, the chart's leaderElectionID)",
            other.sentence(),
            own.sentence()
        )
    });
    Some(Word {
        leader,
        since,
        standing_by,
        apart,
    })
}

/// Says it, once for each leader.
pub struct Standby {
    own: Serves,
    pod: ObjectReference,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    told: Option<Word>,
}

impl Standby {
    /// Events are about this pod. The recorder is one that also a standby may use.
    #[must_use]
    pub fn new(own: Serves, pod: ObjectReference, recorder: Recorder, metrics: Arc<Metrics>) -> Self {
        Self {
            own,
            pod,
            recorder,
            metrics,
            told: None,
        }
    }

    /// What this installation serves.
    #[must_use]
    pub fn own(&self) -> &Serves {
        &self.own
    }

    /// Another holds the Lease.
    pub fn behind(&mut self, lease: &Lease) {
        let word = word(lease, &self.own);
        if word.is_none() || self.told == word {
            return;
        }
        self.told = word;
        let Some(word) = &self.told else { return };
        let (leader, since) = (&word.leader, &word.since);
        tracing::info!(leader, since, "standing by");
        let note = word.apart.as_ref().unwrap_or(&word.standing_by);
        self.metrics.led_by(&word.leader, Some(note.clone()));
        if let Some(apart) = &word.apart {
            tracing::warn!(apart, "another installation holds the lease");
            self.recorder
                .send(self.pod.clone(), true, "StandsBehindAnother", apart);
        }
    }

    /// This replica, of this name, holds it.
    pub fn leads(&mut self, name: &str) {
        self.told = None;
        self.metrics.led_by(name, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lease(annotations: Value, spec: Value) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "lease", "annotations": annotations}, "spec": spec,
        }))
        .unwrap()
    }

    fn of(class: &str, namespaces: &str) -> Value {
        json!({ CLASS: class, NAMESPACES: namespaces })
    }

    #[test]
    fn a_standby_knows_who_leads_and_whether_it_is_one_of_its_kind() {
        let held = json!({"holderIdentity": "one", "acquireTime": "2026-12-01T12:00:00.000000Z"});
        let own = Serves::new("default", &[]);
        for (annotations, apart) in [
            (of("default", "*"), None),
            // External Secrets Operator, or an older build.
            (json!({}), None),
            (json!({ CLASS: "blue" }), None),
            (of("blue", "*"), Some("serves class blue in all namespaces;")),
            (
                of("default", "a,b"),
                Some("serves class default in the namespaces a,b;"),
            ),
        ] {
            let word = word(&lease(annotations, held.clone()), &own).unwrap();
            assert_eq!(
                word.standing_by,
                "standing by: one leads since 2026-12-01T12:00:00Z"
            );
            assert_eq!(word.apart.is_some(), apart.is_some(), "{word:?}");
            if let (Some(said), Some(part)) = (word.apart, apart) {
                assert!(
                    said.contains(part) && said.contains("--leader-election-id"),
                    "{said}"
                );
            }
        }
        let scoped = Serves::new("default", &["a".into(), "b".into()]);
        let same = word(&lease(of("default", "a,b"), held), &scoped).unwrap();
        assert_eq!(same.apart, None);
    }

    #[test]
    fn a_lease_that_nobody_holds_says_nothing() {
        let own = Serves::new("default", &[]);
        for spec in [json!(null), json!({}), json!({"holderIdentity": ""})] {
            assert_eq!(word(&lease(json!({}), spec), &own), None);
        }
    }

    #[test]
    fn what_another_wrote_is_repeated_up_to_a_bound() {
        let long = "x".repeat(100_000);
        let held = json!({"holderIdentity": long.clone()});
        let word = word(&lease(of(&long, &long), held), &Serves::new("default", &[])).unwrap();
        assert!(word.apart.unwrap().len() < 2_000 && word.standing_by.len() < 500);
    }
}
