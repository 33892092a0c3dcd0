//! What the chart renders is held against the API server: the pod under the restricted profile, the NetworkPolicy.

use anyhow::{Context as _, Result, ensure};
use keyferry_testbed::{Cluster, repository, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, cluster, play};

const API_SERVER: &str = r#"networkPolicy.apiServer.to=[{"ipBlock":{"cidr":"10.0.0.1/32"}}]"#;
const POLICY: &str = "networkPolicy.enabled=true";

/// The objects of one of the chart's files, with further arguments for helm.
pub async fn render(cluster: &Cluster, file: &str, further: &[&str]) -> Result<Vec<Value>> {
    let chart = repository().join("deploy/chart").display().to_string();
    let shown = format!("templates/{file}");
    let mut args = vec!["template", "keyferry", &chart, "-n", "security", "-s", &shown];
    args.extend(further);
    let text = cluster.helm(&args).await?;
    let documents = text.split("---\n").filter(|part| part.contains("apiVersion:"));
    let objects: Vec<Value> = documents.map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
    ensure!(!objects.is_empty(), "{file} renders nothing");
    Ok(objects)
}

/// Asks the API server whether it would take the pod.
async fn admit(cluster: &Cluster, namespace: &str, template: &Value) -> Result<String> {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    pod["metadata"]["name"] = json!("keyferry");
    // The chart's own lies in another namespace.
    pod["spec"]["serviceAccountName"] = json!("default");
    let args = ["create", "--dry-run=server", "-n", namespace, "-f", "-"];
    cluster.kubectl(&args, &pod.to_string()).await
}

async fn restricted_namespace(cluster: &Cluster) -> Result<String> {
    let namespace = cluster.namespace("restricted").await?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    cluster
        .kubectl(&["label", "namespace", &namespace, label], "")
        .await?;
    wait_for("the namespace's ServiceAccount", SOON, || async {
        let args = ["get", "serviceaccount", "default", "-n", &namespace];
        cluster.kubectl(&args, "").await.map(Some)
    })
    .await?;
    Ok(namespace)
}

#[test]
fn the_pod_is_admitted_under_the_restricted_profile() {
    play(async {
        let cluster = cluster().await?;
        let namespace = restricted_namespace(cluster).await?;
        let ca = r#"extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]"#;
        let mount = r#"extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ssl/vault","readOnly":true}]"#;
        let env = r#"extraEnv=[{"name":"SSL_CERT_FILE","value":"/etc/ssl/vault/ca.crt"}]"#;
        let options: [&[&str]; 6] = [
            &[],
            &["--set", "replicaCount=3,podDisruptionBudget.enabled=true"],
            &["--set-json", ca, "--set-json", mount, "--set-json", env],
            &[
                "--set",
                "global.compatibility.openshift.adaptSecurityContext=force",
            ],
            &["--set", "podSecurityContext.enabled=false"],
            &["--set", "genericTargets.enabled=true,vault.tokenAudience=vault"],
        ];
        for further in options {
            let deployment = render(cluster, "deployment.yaml", further).await?.remove(0);
            let admitted = admit(cluster, &namespace, &deployment["spec"]["template"]).await;
            admitted.with_context(|| format!("{further:?}"))?;
        }
        // What shows that the profile is enforced, and that the chart's own options can leave it.
        let mut bare = render(cluster, "deployment.yaml", &[]).await?.remove(0);
        bare["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0});
        let host = render(cluster, "deployment.yaml", &["--set", "hostNetwork=true"])
            .await?
            .remove(0);
        for deployment in [bare, host] {
            let refused = admit(cluster, &namespace, &deployment["spec"]["template"]).await;
            let said = refused.err().context("it was admitted")?.to_string();
            ensure!(said.contains("violates PodSecurity \"restricted"), "{said}");
        }
        Ok(())
    });
}

/// The policy as the API server would keep it.
async fn policy(cluster: &Cluster, further: &[&str]) -> Result<Value> {
    let mut args = vec!["--set", POLICY, "--set-json", API_SERVER];
    args.extend(further);
    let rendered = render(cluster, "networkpolicy.yaml", &args).await?.remove(0);
    let args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    Ok(serde_json::from_str(
        &cluster.kubectl(&args, &rendered.to_string()).await?,
    )?)
}

fn list<'a>(value: &'a Value, what: &str) -> &'a [Value] {
    value[what].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn installations_of_another_class_or_scope_have_a_lease_of_their_own_and_the_right_on_it() {
    play(async {
        let cluster = cluster().await?;
        let scoped = "scopedNamespaces={a,b}";
        let rows: [(&[&str], &str); 5] = [
            (&[], "external-secrets-controller"),
            (
                &["--set", "controllerClass=default"],
                "external-secrets-controller",
            ),
            (&["--set", "controllerClass=blue"], "keyferry-controller"),
            (&["--set", scoped], "keyferry-controller"),
            (&["--set", "controllerClass=blue,leaderElectionID=mine"], "mine"),
        ];
        for (further, lease) in rows {
            let deployment = render(cluster, "deployment.yaml", further).await?.remove(0);
            let args = list(&deployment["spec"]["template"]["spec"]["containers"][0], "args");
            let flag = json!(format!("--leader-election-id={lease}"));
            ensure!(args.contains(&flag), "{further:?}: {args:?}");
            let roles = render(cluster, "rbac-own-namespace.yaml", further).await?;
            let named = roles.iter().flat_map(|role| list(role, "rules"));
            let named = named.filter(|rule| rule["resourceNames"] == json!([lease]));
            ensure!(named.count() == 1, "{further:?}: {roles:?}");
        }
        Ok(())
    });
}

#[test]
fn the_network_policy_allows_what_is_listed_and_nothing_else() {
    play(async {
        let cluster = cluster().await?;
        let closed = policy(cluster, &[]).await?;
        let spec = &closed["spec"];
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        ensure!(list(spec, "ingress").is_empty(), "{spec}");
        let deployment = render(cluster, "deployment.yaml", &[]).await?.remove(0);
        let pod = &deployment["spec"]["template"];
        let selector = spec["podSelector"]["matchLabels"].as_object();
        let selector = selector.context("no selector")?;
        ensure!(!selector.is_empty());
        for (key, value) in selector {
            assert_eq!(&pod["metadata"]["labels"][key], value, "{key}");
        }
        let mut ports = Vec::new();
        for rule in list(spec, "egress") {
            ensure!(!list(rule, "to").is_empty(), "{rule}");
            ensure!(
                list(rule, "to")
                    .iter()
                    .all(|peer| peer.as_object().is_some_and(|peer| !peer.is_empty())),
                "{rule}"
            );
            ensure!(!list(rule, "ports").is_empty(), "{rule}");
            ports.extend(list(rule, "ports").iter().map(|port| port["port"].clone()));
        }
        assert_eq!(ports, [53, 53, 443, 6443, 8200]);
        let peers = r#"[{"namespaceSelector":{"matchLabels":{"team":"x"}}}]"#;
        let open = policy(
            cluster,
            &[
                "--set-json",
                &format!("networkPolicy.metrics.from={peers}"),
                "--set-json",
                &format!("networkPolicy.live.from={peers}"),
                "--set-json",
                r#"networkPolicy.extraEgress=[{"to":[{"ipBlock":{"cidr":"10.0.0.9/32"}}],"ports":[{"port":3128}]}]"#,
            ],
        )
        .await?;
        assert_eq!(list(&open["spec"], "egress").len(), 4);
        let rules = list(&open["spec"], "ingress");
        assert_eq!(rules.len(), 2);
        let served = list(&pod["spec"]["containers"][0], "ports");
        for rule in rules {
            assert_eq!(rule["from"], serde_json::from_str::<Value>(peers)?);
            assert_eq!(list(rule, "ports").len(), 1);
            ensure!(
                served.iter().any(|port| port["name"] == rule["ports"][0]["port"]),
                "{rule}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_network_policy_that_would_allow_everything_or_nothing_useful_is_refused_with_the_way_out() {
    play(async {
        let cluster = cluster().await?;
        for (further, word) in [
            (&["--set", POLICY][..], "networkPolicy.apiServer.to is empty"),
            (
                &[
                    "--set",
                    POLICY,
                    "--set-json",
                    API_SERVER,
                    "--set-json",
                    "networkPolicy.vault.ports=[]",
                ][..],
                "networkPolicy.vault.ports is empty",
            ),
            (
                &["--set", POLICY, "--set", "hostNetwork=true"][..],
                "set hostNetwork to false",
            ),
        ] {
            let refused = render(cluster, "networkpolicy.yaml", further).await;
            let said = refused.err().context("it was rendered")?.to_string();
            ensure!(said.contains(word), "{said}");
        }
        Ok(())
    });
}

#[test]
fn the_deletion_brake_is_switched_off_in_either_way_that_yaml_reads_off() {
    play(async {
        let cluster = cluster().await?;
        for (value, flag) in [
            (&[][..], "--deletion-brake=25%,10"),
            (
                &["--set-json", r#"deletionBrake="5%,3""#],
                "--deletion-brake=5%,3",
            ),
            (&["--set", "deletionBrake=off"], "--deletion-brake=off"),
            (&["--set", "deletionBrake=false"], "--deletion-brake=off"),
        ] {
            let rendered = render(cluster, "deployment.yaml", value).await?;
            let args = rendered[0]["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
            ensure!(args.contains(&format!("\"{flag}\"")), "{value:?}: {args}");
        }
        for value in ["deletionBrake=true", "deletionBrake=on", "deletionBrake=25%"] {
            let refused = render(cluster, "deployment.yaml", &["--set", value]).await;
            ensure!(refused.is_err(), "{value} was taken");
        }
        Ok(())
    });
}
