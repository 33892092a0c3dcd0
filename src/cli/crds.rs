//! Prints or writes the CustomResourceDefinitions.

use std::path::Path;

use crate::api::crds;

/// Prints them, or writes one file a kind into a folder.
///
/// # Errors
/// What could not be written, and where.
pub fn crds(folder: Option<&Path>) -> Result<(), String> {
    for crd in crds::all() {
        let yaml = crds::yaml(&crd)
            .map_err(|e| format!("the definition of {} cannot be written: {e}", crd.spec.names.kind))?;
        match folder {
            None => print!("---\n{yaml}"),
            Some(folder) => {
                std::fs::create_dir_all(folder)
                    .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
                let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
                std::fs::write(&file, yaml).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            }
        }
    }
    Ok(())
}
