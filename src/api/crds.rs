//! The CustomResourceDefinitions: the types' schemas, made into what the API server and ESO's users need.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt as _, ResourceExt as _};
use serde_json::{Value, json};

use super::external_secret::ExternalSecret;
use super::store::{ClusterSecretStore, SecretStore};
use super::{bounds, rules};

/// Why a definition could not be made: a fault of the program that a test finds.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It is not of the form that it must have.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// It cannot be written as YAML.
    #[error("{0}")]
    Yaml(String),
}

/// All definitions.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let external = json!({
        "categories": ["external-secrets"], "shortNames": ["es"],
        "columns": [
            column("StoreType", "string", ".spec.secretStoreRef.kind"),
            column("Store", "string", ".spec.secretStoreRef.name"),
            column("Refresh Interval", "string", ".spec.refreshInterval"),
            column("Status", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
            column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
            column("Last Sync", "date", ".status.refreshTime"),
        ],
        "selectable": [
            {"jsonPath": ".spec.secretStoreRef.name"}, {"jsonPath": ".spec.secretStoreRef.kind"},
            {"jsonPath": ".spec.target.name"}, {"jsonPath": ".spec.refreshInterval"},
        ],
    });
    let store = |short: &str| {
        json!({
            "categories": ["external-secrets"], "shortNames": [short],
            "columns": [
                column("AGE", "date", ".metadata.creationTimestamp"),
                column("Status", "string", ".status.conditions[?(@.type==\"Ready\")].reason"),
                column("Capabilities", "string", ".status.capabilities"),
                column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
            ],
        })
    };
    let store_rules = |schema: &mut Value| {
        rules::store(schema);
        bounds::store(schema);
    };
    vec![
        finish(ExternalSecret::crd(), &external, |schema| {
            rules::external_secret(schema);
            bounds::external_secret(schema);
        }),
        finish(SecretStore::crd(), &store("ss"), store_rules),
        finish(ClusterSecretStore::crd(), &store("css"), store_rules),
    ]
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

/// Adds what the derive cannot say. The definition comes back unchanged if it were not of the known
/// shape, which the tests would notice.
fn finish(crd: CustomResourceDefinition, names: &Value, rules: fn(&mut Value)) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else {
        return crd;
    };
    value["metadata"] = json!({
        "name": crd.name_any(),
        "labels": {"external-secrets.io/component": "controller"},
        // Uninstalling the chart must not take everybody's Secrets along.
        "annotations": {"helm.sh/resource-policy": "keep"},
    });
    value["spec"]["names"]["categories"] = names["categories"].clone();
    value["spec"]["names"]["shortNames"] = names["shortNames"].clone();
    let version = &mut value["spec"]["versions"][0];
    version["additionalPrinterColumns"] = names["columns"].clone();
    if let Some(selectable) = names.get("selectable") {
        version["selectableFields"] = selectable.clone();
    }
    version["subresources"] = json!({"status": {}});
    let schema = &mut version["schema"]["openAPIV3Schema"];
    rules::tidy(schema);
    rules(schema);
    // Clusters that once stored v1beta1 refuse a definition that does not name it.
    if let Some(versions) = value["spec"]["versions"].as_array_mut() {
        versions.push(json!({
            "name": "v1beta1", "served": false, "storage": false,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        }));
    }
    serde_json::from_value(value).unwrap_or(crd)
}

/// A definition as YAML, keys in the order of the types.
///
/// # Errors
/// If it cannot be written.
pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, CrdError> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    let text = serde_saphyr::to_string(&value).map_err(|e| CrdError::Yaml(e.to_string()))?;
    Ok(format!(
        "# Generated from src/api by 'cargo run --bin keyferry -- crds --write crds'; do not edit.\n{text}"
    ))
}
