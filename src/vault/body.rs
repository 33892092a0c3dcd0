//! Bodies of answers: as large as allowed, and with their share of the memory if they are large.

use std::ops::Deref;

use zeroize::Zeroizing;

use super::error::{Unreachable, VaultError};
use super::json;
use crate::memory::{self, Share};

/// Bytes of a body that are read without room for it.
pub const SMALL: usize = memory::QUICK;
/// Bytes of a body that are read at most: 1 MiB is the largest Secret, and JSON escapes up to sixfold.
pub const LARGEST: usize = 8 << 20;

/// A body, with its share of the memory if it is large.
pub struct Body {
    bytes: Zeroizing<Vec<u8>>,
    /// Of what is made of it.
    _share: Option<Share>,
}

impl Body {
    /// Reads the body of a response, of so many bytes at most. Who allows more than [`SMALL`] has room for them.
    ///
    /// # Errors
    /// If it is too large, there is no room for what is made of it, or the connection fails before its end.
    pub async fn read(response: reqwest::Response, most: usize) -> Result<Self, VaultError> {
        let bytes = bounded_body(response, most).await;
        let bytes = bytes
            .map_err(VaultError::Unreachable)?
            .ok_or(VaultError::Larger(most))?;
        let share = match bytes.len() > SMALL {
            true => Some(memory::budget().make(json::cost(&bytes)).await?),
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
