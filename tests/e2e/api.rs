//! What the API server accepts and refuses by our definitions, and what becomes of odd objects.

use anyhow::Result;
use serde_json::{Value, json};

use crate::scene::{Scene, cluster, one, play};

#[test]
fn bad_manifests_are_refused_with_messages_that_a_person_understands() {
    play(async {
        let cluster = cluster().await?;
        let data = json!([one("value", "app", "value")]);
        for (spec, message) in [
            (json!({}), "either data or dataFrom should be specified"),
            (
                json!({"data": data, "refreshInterval": "1h-5m"}),
                "write a duration such as 1h",
            ),
            (
                json!({"data": data, "target": {"deletionPolicy": "Delete", "creationPolicy": "Merge"}}),
                "Please set creationPolicy=Owner",
            ),
            (
                json!({"data": data, "target": {"deletionPolicy": "Merge", "creationPolicy": "None"}}),
                "There is no Secret to merge with",
            ),
            (
                json!({"dataFrom": [{}]}),
                "either extract, find, or sourceRef must be set",
            ),
            (
                json!({"dataFrom": [{"extract": {"key": "a"}, "find": {}}]}),
                "cannot be set at the same time",
            ),
            (
                json!({"data": data, "target": {"template": {"type": "bootstrap.kubernetes.io/token"}}}),
                "is not allowed",
            ),
            (
                json!({"data": [one("no spaces", "app", "value")]}),
                "spec.data[0].secretKey",
            ),
            (
                json!({"data": data, "target": {"creationPolicy": "Whatever"}}),
                "Unsupported value",
            ),
        ] {
            let object = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                "metadata": {"name": "bad", "namespace": "default"}, "spec": spec,
            });
            let error = cluster
                .apply(&object.to_string())
                .await
                .err()
                .map(|e| format!("{e:#}"))
                .unwrap_or_default();
            assert!(error.contains(message), "wanted '{message}', got: {error}");
        }
        let two = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "bad"},
            "spec": {"provider": {"vault": {"server": "http://x"}, "aws": {}}},
        });
        assert!(cluster.apply(&two.to_string()).await.is_err());
        Ok(())
    });
}

#[test]
fn manifests_written_for_eso_apply_unchanged_and_nothing_of_them_is_pruned() {
    play(async {
        let scene = Scene::new("eso").await?;
        let remote = json!({
            "key": "app", "property": "value", "version": "1", "metadataPolicy": "None", "conversionStrategy": "Default",
            "decodingStrategy": "None", "nullBytePolicy": "Ignore",
        });
        let spec = json!({
            "refreshPolicy": "Periodic", "refreshInterval": "1h30m",
            "secretStoreRef": {"name": scene.class, "kind": "ClusterSecretStore"},
            "syncWindows": {"kind": "allow", "windows": [{"schedule": "0 22 * * *", "duration": "2h"}]},
            "target": {"name": "", "creationPolicy": "Owner", "deletionPolicy": "Retain", "immutable": false, "template": {
                "engineVersion": "v2", "mergePolicy": "Replace", "type": "Opaque",
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["example.com/f"]},
                "data": {"config": "{{ .value }}"},
                "templateFrom": [
                    {"configMap": {"name": "cm", "items": [{"key": "k", "templateAs": "KeysAndValues"}]}},
                    {"literal": "a: b", "target": "Annotations", "valuesDecodingStrategy": "Base64URL"},
                ],
            }},
            "data": [{"secretKey": "value", "remoteRef": remote, "sourceRef": {"storeRef": {"name": "own", "kind": "SecretStore"}}}],
            "dataFrom": [
                {"extract": remote},
                {"find": {"path": "p", "name": {"regexp": ".*"}, "tags": {"t": "v"}}, "rewrite": [
                    {"regexp": {"source": "a", "target": "b"}}, {"transform": {"template": "{{ .value }}"}},
                    {"merge": {"into": "x", "priority": ["a"], "priorityPolicy": "IgnoreNotFound", "conflictPolicy": "Ignore", "strategy": "JSON"}},
                ]},
                {"sourceRef": {"generatorRef": {"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "Password", "name": "p"}}},
            ],
        });
        scene.external_secret("all", spec.clone()).await?;
        let stored = scene.get("externalsecret", "all").await?["spec"].clone();
        assert_eq!(stored, spec, "something was pruned or added");
        // Served later, refused now, by the name of the field.
        scene
            .wait_ready("externalsecret", "all", "False", "spec.")
            .await?;
        Ok(())
    });
}

#[test]
fn the_whole_configuration_of_vault_is_in_the_schema_and_unserved_parts_are_refused_by_name() {
    play(async {
        let scene = Scene::new("schema").await?;
        let key = json!({"name": "s", "key": "k", "namespace": scene.namespace});
        let base = json!({"server": scene.vault.address(), "path": "secret", "version": "v2"});
        for (field, provider) in [
            (
                "auth.appRole",
                json!({"auth": {"appRole": {"path": "approle", "roleId": "r", "secretRef": key}}}),
            ),
            (
                "auth.ldap",
                json!({"auth": {"ldap": {"path": "ldap", "username": "u", "secretRef": key}}}),
            ),
            (
                "auth.userPass",
                json!({"auth": {"userPass": {"path": "userpass", "username": "u", "secretRef": key}}}),
            ),
            (
                "auth.jwt",
                json!({"auth": {"jwt": {"path": "jwt", "role": "r", "kubernetesServiceAccountToken": {"serviceAccountRef": {"name": "s", "namespace": scene.namespace}, "audiences": ["v"], "expirationSeconds": 600}}}}),
            ),
            (
                "auth.cert",
                json!({"auth": {"cert": {"path": "cert", "clientCert": key, "secretRef": key, "vaultRole": "r"}}}),
            ),
            (
                "auth.iam",
                json!({"auth": {"iam": {"path": "aws", "region": "r", "role": "a", "vaultRole": "v", "externalID": "e", "vaultAwsIamServerID": "i", "secretRef": {"accessKeyIDSecretRef": key, "secretAccessKeySecretRef": key}}}}),
            ),
            (
                "auth.gcp",
                json!({"auth": {"gcp": {"path": "gcp", "role": "r", "projectID": "p", "secretRef": {"secretAccessKeySecretRef": key}}}}),
            ),
            (
                "auth.gcp.workloadIdentity",
                json!({"auth": {"gcp": {"path": "gcp", "role": "r", "workloadIdentity": {"clusterName": "c", "serviceAccountRef": {"name": "s"}}}}}),
            ),
        ] {
            let mut vault = base.clone();
            let (Some(into), Some(from)) = (vault.as_object_mut(), provider.as_object()) else {
                continue;
            };
            into.extend(from.clone());
            let name = format!("{}-{}", scene.class, field.to_lowercase().replace('.', "-"));
            let mut store = scene.store_manifest(scene.vault.address(), &Value::Null);
            store["metadata"]["name"] = json!(name);
            store["spec"]["provider"]["vault"] = vault.clone();
            scene.cluster.apply(&store.to_string()).await?;
            let stored = scene.get("clustersecretstore", &name).await?;
            assert_eq!(stored["spec"]["provider"]["vault"], vault, "{field}");
            // What is served goes on to the Secret or the ServiceAccount, which does not exist here.
            let refusal = match field {
                "auth.jwt" => "cannot create a token for ServiceAccount".into(),
                "auth.gcp.workloadIdentity" => format!("spec.provider.vault.{field}"),
                _ => "cannot read Secret".into(),
            };
            scene
                .wait_ready("clustersecretstore", &name, "False", &refusal)
                .await?;
        }
        Result::Ok(())
    });
}
