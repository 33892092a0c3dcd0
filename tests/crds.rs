//! The generated definitions: held to the code, small, and without what troubles their users.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use keyferry::api::crds;
use serde_json::Value;

#[test]
fn the_files_are_those_that_the_code_makes() {
    for crd in crds::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("crds")
            .join(format!("{}.yaml", crd.spec.names.plural));
        let file = fs::read_to_string(&path).expect("the file");
        let made = crds::yaml(&crd).unwrap();
        assert!(
            file == made,
            "{} is out of date: cargo run --bin keyferry -- crds --write crds",
            path.display()
        );
    }
}

#[test]
fn each_file_fits_a_plain_kubectl_apply() {
    for crd in crds::all() {
        let size = crds::yaml(&crd).unwrap().len();
        assert!(size < 100_000, "{}: {size} bytes", crd.spec.names.plural);
    }
}

fn walk(node: &Value, path: &str, below_items: bool, visit: &mut impl FnMut(&Value, &str, bool)) {
    visit(node, path, below_items);
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            walk(child, &format!("{path}.{name}"), below_items, visit);
        }
    }
    if let Some(items) = node.get("items") {
        walk(items, &format!("{path}[]"), true, visit);
    }
}

fn each_node(mut visit: impl FnMut(&Value, &str, bool)) {
    for crd in crds::all() {
        let value = serde_json::to_value(&crd).unwrap();
        let kind = &crd.spec.names.kind;
        walk(
            &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            kind,
            false,
            &mut visit,
        );
    }
}

#[test]
fn every_text_list_and_map_of_a_spec_has_a_bound() {
    let mut checked = 0;
    each_node(|node, path, _| {
        let Some((_, place)) = path.split_once(".spec") else {
            return;
        };
        let is_bound =
            |node: &Value, keyword: &str| node[keyword].as_u64().is_some_and(|most| most <= 1 << 20);
        let text = |node: &Value| {
            node["type"] != "string" || node.get("enum").is_some() || is_bound(node, "maxLength")
        };
        assert!(text(node), "{path} has no maxLength");
        assert!(
            node["type"] != "array" || is_bound(node, "maxItems"),
            "{path} has no maxItems"
        );
        if let Some(each) = node.get("additionalProperties") {
            assert!(is_bound(node, "maxProperties"), "{path} has no maxProperties");
            assert!(text(each), "the values of {path} have no maxLength");
        }
        checked += usize::from(!place.is_empty());
    });
    assert!(checked > 300, "{checked} fields");
}

#[test]
fn no_default_stands_inside_a_list() {
    each_node(|node, path, below_items| assert!(!below_items || node.get("default").is_none(), "{path}"));
}

#[test]
fn no_format_that_the_api_server_warns_of() {
    each_node(|node, path, _| {
        let format = node.get("format").and_then(Value::as_str).unwrap_or_default();
        assert!(
            matches!(format, "" | "int32" | "int64" | "date-time" | "byte"),
            "{path}: {format}"
        );
    });
}

#[test]
fn every_field_that_eso_has_is_there() {
    let mut paths = Vec::new();
    each_node(|_, path, _| paths.push(path.to_string()));
    for field in [
        "ExternalSecret.spec.secretStoreRef.kind",
        "ExternalSecret.spec.refreshPolicy",
        "ExternalSecret.spec.syncWindows.windows[].schedule",
        "ExternalSecret.spec.target.manifest.apiVersion",
        "ExternalSecret.spec.target.template.templateFrom[].configMap.items[].templateAs",
        "ExternalSecret.spec.target.template.templateFrom[].valuesDecodingStrategy",
        "ExternalSecret.spec.target.template.metadata.finalizers",
        "ExternalSecret.spec.data[].remoteRef.nullBytePolicy",
        "ExternalSecret.spec.data[].sourceRef.generatorRef.kind",
        "ExternalSecret.spec.dataFrom[].find.name.regexp",
        "ExternalSecret.spec.dataFrom[].rewrite[].merge.priorityPolicy",
        "ExternalSecret.status.binding.name",
        "ExternalSecret.status.syncedResourceVersion",
        "SecretStore.spec.controller",
        "SecretStore.spec.retrySettings.maxRetries",
        "SecretStore.spec.provider.aws",
        "SecretStore.spec.provider.onepasswordSDK",
        "SecretStore.spec.provider.fake.data[].value",
        "SecretStore.spec.provider.openBao.auth.kubernetes.serviceAccountRef.audiences",
        "SecretStore.spec.provider.vault.auth.iam.secretRef.accessKeyIDSecretRef.name",
        "SecretStore.spec.provider.vault.auth.jwt.kubernetesServiceAccountToken.expirationSeconds",
        "SecretStore.spec.provider.vault.auth.kubernetes.mountPath",
        "SecretStore.spec.provider.vault.caProvider.namespace",
        "SecretStore.spec.provider.vault.checkAndSet.required",
        "SecretStore.spec.provider.vault.headers",
        "SecretStore.spec.provider.vault.tls.keySecretRef.key",
        "ClusterSecretStore.spec.conditions[].namespaceRegexes",
        "ClusterSecretStore.spec.provider.vault.auth.gcp.workloadIdentity",
        "ClusterSecretStore.status.capabilities",
    ] {
        assert!(paths.iter().any(|path| path == field), "{field}");
    }
}
