//! The note at a target that its values are leased. The next process cannot renew the token on which they hang, and
//! reads them anew before they end. The note holds no more than a time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use crate::sync::assemble::Assembled;

/// The annotation.
pub const ANNOTATION_LEASED_UNTIL: &str = "keyferry.dev/leased-until";

/// Adds the note, if the values are leased.
pub(super) fn note(annotations: &mut BTreeMap<String, String>, assembled: &Assembled) {
    if let Some(until) = assembled.leased_until {
        // Rounded down: earlier than the end is safe.
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        annotations.insert(ANNOTATION_LEASED_UNTIL.into(), until.to_string());
    }
}

/// Until when the values of a Secret live for sure, if they are leased. A note that cannot be read says nothing of when.
#[must_use]
pub fn until(secret: &Secret) -> Option<Timestamp> {
    let note = secret
        .metadata
        .annotations
        .as_ref()?
        .get(ANNOTATION_LEASED_UNTIL)?;
    Some(note.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(assembled: &Assembled) -> Secret {
        let mut secret = Secret::default();
        note(secret.metadata.annotations.get_or_insert_default(), assembled);
        secret
    }

    #[test]
    fn the_note_tells_the_end_to_the_second_before_it_and_no_more() {
        let mut assembled = Assembled::default();
        assert_eq!(until(&secret(&assembled)), None);
        assembled.leased_until = "2026-12-01T12:00:00.9Z".parse().ok();
        let noted = secret(&assembled);
        assert_eq!(until(&noted), "2026-12-01T12:00:00Z".parse().ok());
        let notes = noted.metadata.annotations.unwrap_or_default();
        assert_eq!(notes.into_values().collect::<Vec<_>>(), ["2026-12-01T12:00:00Z"]);
    }

    #[test]
    fn a_note_that_cannot_be_read_tells_of_values_that_may_have_ended() {
        let mut secret = Secret::default();
        let notes = secret.metadata.annotations.get_or_insert_default();
        notes.insert(ANNOTATION_LEASED_UNTIL.into(), "tomorrow".into());
        assert_eq!(until(&secret), Some(Timestamp::UNIX_EPOCH));
    }
}
