//! Bodies of answers: as large as allowed, and with their share of the memory if they are large.

use std::ops::Deref;

use zeroize::Zeroizing;

use super::error::{Unreachable, VaultError};
use super::json;
use crate::memory::{self, Share, Short};

/// Bytes of a body that are read at most: 1 MiB is the largest Secret, and JSON escapes up to sixfold.
pub const BODY_LIMIT: usize = 8 << 20;
const TOO_LARGE: VaultError = VaultError::BadAnswer(
    "Vault's answer is larger than 8 MiB and was not read; a Kubernetes Secret holds 1 MiB at most",
);

/// A body, with its share of the memory if it is large.
pub struct Body {
    bytes: Zeroizing<Vec<u8>>,
    /// Of what is made of it.
    _share: Option<Share>,
}

impl Body {
    /// Reads the body of a response.
    ///
    /// # Errors
    /// If it is too large, there is no room for it, or the connection fails before its end.
    pub async fn read(response: reqwest::Response) -> Result<Self, VaultError> {
        let bytes = bounded_body(response, BODY_LIMIT).await;
        let bytes = bytes.map_err(VaultError::Unreachable)?.ok_or(TOO_LARGE)?;
        let share = match bytes.len() > memory::QUICK {
            true => Some(memory::budget().take(json::cost(&bytes)).await.map_err(short)?),
            false => None,
        };
        Ok(Self { bytes, _share: share })
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
            _share: None,
        }
    }
}

fn short(short: Short) -> VaultError {
    VaultError::BadAnswer(match short {
        Short::Never => {
            "Vault's answer needs more memory than the operator has; raise the memory limit of its pod \
             (resources.limits.memory)"
        }
        Short::Busy => {
            "Vault's answer is large, and the operator's memory is in use by other large objects; it is read again. If it \
             stays so, raise the memory limit of its pod (resources.limits.memory)"
        }
    })
}

/// A body of at most so many bytes; of a larger one nothing is kept.
///
/// # Errors
/// If the connection fails before its end.
pub async fn bounded_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Zeroizing<Vec<u8>>>, Unreachable> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Unreachable::from(&error))?
    {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
