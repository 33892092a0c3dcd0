//! Promise 8: canaries of every kind, planted wherever a secret may stand, and looked for in all that the operator
//! says, as they are and in the forms in which they travel.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keyferry_testbed::{Answer, Mode, Proxy, wait_for};
use serde_json::{Value, json};

use crate::manifest;
use crate::scene::{SOON, Scene, login, one, play};

/// What is planted; each by a name of its own.
#[derive(Default)]
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    /// A new one: letters, digits and what URLs, JSON and HTML escape.
    fn plant(&mut self, place: &'static str) -> String {
        let number = self.0.len();
        let canary = format!("c4n4ry{number:03}\"<h0nk>&é{number:03}k");
        self.0.push((place, canary.clone()));
        canary
    }

    /// One that may stand in a header, a token or a label.
    fn plain(&mut self, place: &'static str) -> String {
        let canary = format!("c4n4ryPLA1N{:03}hOnK", self.0.len());
        self.0.push((place, canary.clone()));
        canary
    }

    /// Fails if a text shows one, in whatever form.
    fn check(&self, place: &str, text: &str) -> Result<()> {
        let lower = text.to_lowercase();
        for (planted, canary) in &self.0 {
            for form in forms(canary) {
                ensure!(
                    !text.contains(&form) && !lower.contains(&form.to_lowercase()),
                    "the canary of '{planted}' was found in {place} as {form}"
                );
            }
        }
        for (what, start) in [("a Vault token", "hvs."), ("a JWT", "eyJhbGciOi")] {
            ensure!(!text.contains(start), "{what} was found in {place}");
        }
        Ok(())
    }
}

/// A canary as it is, and as base64, hex, escapes of URLs, JSON and HTML, and a list of bytes write it. Of base64 the
/// part that does not depend on what stands around it, for each of three offsets.
fn forms(canary: &str) -> Vec<String> {
    let bytes = canary.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let escaped = json!(canary).to_string();
    let html = escaped
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    let url: String = url::form_urlencoded::byte_serialize(bytes).collect();
    let mut forms = vec![
        // The first part has no letter that any form escapes.
        canary[..9].to_owned(),
        hex,
        list.join(","),
        list.join(", "),
        escaped.trim_matches('"').to_owned(),
        html.trim_matches('"').to_owned(),
        url.replace('+', "%20"),
    ];
    for offset in 0..3 {
        let padded = [&[0; 3][..offset], bytes].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&padded);
            forms.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    forms
}

#[test]
fn a_canary_is_found_in_whatever_form_it_is_written() {
    let mut canaries = Canaries::default();
    let (rich, plain) = (canaries.plant("a value"), canaries.plain("a token"));
    for canary in [rich, plain] {
        let hex: String = canary.bytes().map(|byte| format!("{byte:02X}")).collect();
        let url: String = url::form_urlencoded::byte_serialize(canary.as_bytes()).collect();
        for before in ["", "a", "ab", "abc"] {
            let within = format!("{before}{canary} and more");
            for text in [
                within.clone(),
                STANDARD_NO_PAD.encode(&within),
                URL_SAFE_NO_PAD.encode(&within),
                json!(within).to_string(),
                format!("{before}{hex}"),
                format!("{before}{url}"),
                format!("{:?}", within.as_bytes()),
            ] {
                assert!(canaries.check("a test", &text).is_err(), "{text}");
            }
        }
    }
    assert!(canaries.check("a test", "c4n4r and hvs and eyJ").is_ok());
}

/// All that the operator says and leaves, but for the data of Secrets and the specs that tests themselves wrote.
async fn said(scene: &Scene) -> Result<Vec<(String, String)>> {
    let mut said = vec![
        ("logs".to_owned(), scene.operator().logs()),
        ("metrics".to_owned(), scene.operator().metrics().await?),
    ];
    for kind in [
        "externalsecrets",
        "secretstores",
        "clustersecretstores",
        "events",
        "configmaps",
    ] {
        let args = [
            "get",
            kind,
            "-n",
            &scene.namespace,
            "--show-managed-fields",
            "-o",
            "json",
        ];
        said.push((kind.to_owned(), scene.cluster.kubectl(&args, "").await?));
    }
    // Of Secrets the metadata, with their managed fields, hashes and annotations.
    for secret in scene.list_with_managed_fields("secrets").await? {
        let name = &secret["metadata"]["name"];
        if secret["metadata"]["labels"]["reconcile.external-secrets.io/managed"] == "true" {
            said.push((
                format!("metadata of Secret {name}"),
                secret["metadata"].to_string(),
            ));
        }
    }
    Ok(said)
}

async fn check(scene: &Scene, canaries: &Canaries) -> Result<()> {
    let said = said(scene).await?;
    ensure!(said[0].1.contains("DEBUG") || said[0].1.contains("TRACE") || said[0].1.contains("INFO"));
    for (place, text) in said {
        canaries
            .check(&place, &text)
            .with_context(|| format!("in namespace {}", scene.namespace))?;
    }
    Ok(())
}

/// Templates that fail on a value.
const FAILING: &[&str] = &[
    "{{ fail .v }}",
    "{{ required .v .missing }}",
    "{{ .v | mustToDate \"2006-01-02\" }}",
    "{{ toDate .v }}",
    "{{ .v | b64dec | mustFromJson }}",
    "{{ .v | mustFromJson }}",
    "{{ (.v | fromYaml).x.y }}",
    "{{ index (list 1) (len .v) }}",
    "{{ index .v .v }}",
    "{{ slice .v 100 }}",
    "{{ .v.x }}",
    "{{ call .v }}",
    "{{ lt .v 1 }}",
    "{{ range .v }}{{ end }}",
    "{{ template \"none\" .v }}",
    "{{ mustRegexMatch .broken .v }}",
    "{{ semver .v }}",
    "{{ mustDateModify .v (now) }}",
    "{{ pkcs12key .v }}",
    "{{ pkcs12cert .v }}",
    "{{ pkcs12keyPass .v .p12 }}",
    "{{ fullPemToPkcs12Pass .v .key .v }}",
    "{{ pemToPkcs12Pass .key .key .v }}",
    "{{ pemCertificate .key }}",
    "{{ filterPEM .v .key }}",
    "{{ jwkPrivateKeyPem .json }}",
    "{{ jwkPublicKeyPem .json }}",
    "{{ decryptAES .v .v }}",
    "{{ genCAWithKey .v 1 .key }}",
    "{{ urlParse (printf \"http://[%s\" .v) }}",
    "{{ printf \"%d\" (atoi .v) | index (list) }}",
    "{{ fail (b64enc .v) }}",
    "{{ fail (.v | toJson) }}",
];

#[test]
fn no_value_of_vault_is_shown_whatever_fails_on_it() {
    play(async {
        let mut canaries = Canaries::default();
        let scene = manifest::stage("canary-values", &[manifest::FLAG]).await?;
        let broken = canaries.plant("broken JSON");
        let pem = format!(
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
            canaries.plain("a private key")
        );
        let data = json!({
            "v": canaries.plant("a value"), "broken": format!("({}[", canaries.plant("an expression")),
            "json": format!("{{\"kty\": \"{broken}"), "key": pem, "p12": canaries.plant("a PKCS#12 file"),
            "lines": format!("a\n{}\nb: [", canaries.plant("a value of several lines")),
            "binary": base64::engine::general_purpose::STANDARD.encode(canaries.plant("a binary value").as_bytes()),
            "nul": format!("{}\u{0}", canaries.plant("a value with a null byte")),
            "nested": {"in": {"list": [canaries.plant("a nested value"), 1.5]}},
            "pull": format!("{{\"auths\": {}", canaries.plant("a pull secret")),
        });
        scene.vault.put("app", data.clone()).await?;
        let custom = json!({"custom_metadata": {"owner": canaries.plain("metadata")}});
        scene.vault.api("POST", "secret/metadata/app", &custom).await?;
        let keys = ["v", "broken", "json", "key", "p12", "lines", "nul", "pull"];
        let all: Vec<Value> = keys.iter().map(|key| one(key, "app", key)).collect();
        let with = |target: Value| json!({"target": target, "data": all});
        let mut specs: Vec<(String, Value)> = Vec::new();
        for (i, template) in FAILING.iter().enumerate() {
            specs.push((
                format!("template-{i}"),
                with(json!({"template": {"data": {"out": template}}})),
            ));
        }
        for (i, (place, literal)) in [
            ("Data", "{{ .lines }}"),
            ("Data", "{{ .v }}"),
            ("Labels", "a: {{ .v | toJson }}"),
            ("Labels", "{{ .v | toJson }}: a"),
            ("Annotations", "{{ .v | toJson }}: a"),
        ]
        .iter()
        .enumerate()
        {
            let template = json!({"templateFrom": [{"target": place, "literal": literal}]});
            specs.push((format!("from-{i}"), with(json!({"template": template}))));
        }
        for (type_, key, template) in [
            (
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                "{{ .pull }}",
            ),
            ("kubernetes.io/dockercfg", ".dockercfg", "{{ .pull }}"),
            ("kubernetes.io/tls", "tls.crt", "{{ .key }}"),
            ("kubernetes.io/ssh-auth", "other", "{{ .key }}"),
        ] {
            specs.push((
                format!("type{key}").replace('.', "-"),
                with(json!({"template": {"type": type_, "data": {key: template}}})),
            ));
        }
        for (i, literal) in ["{{ .lines }}", "a: *{{ .v }}", "{{ fail .v }}"]
            .iter()
            .enumerate()
        {
            let target = json!({"template": {"templateFrom": [{"target": "spec.config", "literal": literal}]},
                "manifest": {"apiVersion": "keyferry.example/v1", "kind": "Shop"}});
            specs.push((format!("manifest-{i}"), with(target)));
        }
        let shop = json!({"manifest": {"apiVersion": "keyferry.example/v1", "kind": "Shop"}});
        specs.push(("manifest-long".into(), with(shop)));
        let decoded = |field: &str, way: &str, key: &str| {
            let mut entry = one("out", "app", key);
            entry["remoteRef"][field] = json!(way);
            json!({"data": [entry]})
        };
        specs.extend([
            ("base64".into(), decoded("decodingStrategy", "Base64", "v")),
            ("base64url".into(), decoded("decodingStrategy", "Base64URL", "lines")),
            ("null-byte".into(), decoded("nullBytePolicy", "Fail", "nul")),
            ("no-property".into(), json!({"data": [one("out", "app", "nested.in.list.#(==\"x\").y")]})),
            ("extract".into(), json!({"dataFrom": [{"extract": {"key": "app", "property": "json"}}]})),
            ("extract-text".into(), json!({"dataFrom": [{"extract": {"key": "app", "property": "lines"}}]})),
            ("merge".into(), json!({"dataFrom": [{"extract": {"key": "app"}, "rewrite": [{"merge": {}}]}]})),
            ("transform".into(), json!({"dataFrom": [{"extract": {"key": "app"}, "rewrite": [{"transform": {"template": "{{ fail .value }}"}}]}]})),
            ("metadata".into(), json!({"data": [{"secretKey": "out", "remoteRef": {"key": "app", "property": "owner.x", "metadataPolicy": "Fetch"}}]})),
        ]);
        let yaml: String = specs
            .iter()
            .map(|(name, spec)| format!("---\n{}\n", scene.external_secret_manifest(name, spec.clone())))
            .collect();
        scene.cluster.apply(&yaml).await?;
        // One that succeeds, so that the canaries did come by.
        scene
            .external_secret("good", json!({"dataFrom": [{"extract": {"key": "app"}}]}))
            .await?;
        scene
            .wait_value("good", "v", data["v"].as_str().unwrap_or_default())
            .await?;
        let mut failed = 0;
        for (name, _) in &specs {
            let told = wait_for(name, SOON, || async {
                Ok(scene.ready("externalsecret", name).await.ok())
            })
            .await?;
            failed += usize::from(told.0 == "False");
        }
        ensure!(
            failed >= specs.len() - 6,
            "only {failed} of {} failed",
            specs.len()
        );
        check(&scene, &canaries).await
    });
}

#[test]
fn no_proof_of_a_login_is_shown_whatever_vault_says_to_it() {
    play(async {
        let mut canaries = Canaries::default();
        let mut scene = Scene::without_operator("canary-logins").await?;
        let ns = scene.namespace.clone();
        for kind in ["userpass", "approle", "jwt"] {
            scene.vault.enable_auth(kind, kind).await?;
        }
        scene.vault.enable_plugin("ldap", "ldap").await?;
        let mut secrets = json!({});
        for (key, place) in [
            ("token", "a Vault token"),
            ("password", "a password"),
            ("secret-id", "a secret ID"),
            ("role-id", "a role ID"),
            ("ca", "a CA that is none"),
            ("aws", "an AWS key"),
        ] {
            secrets[key] = json!(canaries.plain(place));
        }
        secrets["jwt"] = json!(format!("e30.{}.sig", canaries.plain("a JWT")));
        secrets["broken-token"] = json!(format!("{}\nsecond line", canaries.plain("a token of two lines")));
        secrets["key"] = json!(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            canaries.plain("a certificate's key")
        ));
        secrets["crt"] = json!(scene.cluster.authority().client("app", None)?.certificate);
        secrets["gcp"] = json!(format!(
            "{{\"client_email\": \"a\", \"private_key\": \"{}\"",
            canaries.plain("a key of Google")
        ));
        scene.write_secret(&ns, "proofs", secrets).await?;
        let key = |key: &str| json!({"name": "proofs", "key": key, "namespace": ns});
        let auths = [
            ("token", json!({"tokenSecretRef": key("token")})),
            ("broken", json!({"tokenSecretRef": key("broken-token")})),
            (
                "approle",
                json!({"appRole": {"roleRef": key("role-id"), "secretRef": key("secret-id")}}),
            ),
            (
                "userpass",
                json!({"userPass": {"username": "alice", "secretRef": key("password")}}),
            ),
            (
                "ldap",
                json!({"ldap": {"username": "alice", "secretRef": key("password")}}),
            ),
            ("jwt", json!({"jwt": {"role": "r", "secretRef": key("jwt")}})),
            (
                "account",
                json!({"kubernetes": {"role": "r", "secretRef": key("jwt")}}),
            ),
            (
                "requested",
                json!({"kubernetes": {"role": "none", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"}}}),
            ),
            (
                "cert",
                json!({"cert": {"clientCert": key("crt"), "secretRef": key("key")}}),
            ),
            (
                "gcp",
                json!({"gcp": {"role": "r", "secretRef": {"secretAccessKeySecretRef": key("gcp")}}}),
            ),
            (
                "iam",
                json!({"iam": {"vaultRole": "r", "secretRef": {"accessKeyIDSecretRef": key("aws"), "secretAccessKeySecretRef": key("aws")}}}),
            ),
        ];
        for (name, auth) in &auths {
            scene.further_store(name, auth).await?;
        }
        let mut store = scene.store_manifest(scene.vault.tls_address(), &login());
        store["metadata"]["name"] = json!(format!("{}-ca", scene.class));
        store["spec"]["provider"]["vault"]["caProvider"] =
            json!({"type": "Secret", "name": "proofs", "key": "ca", "namespace": ns});
        scene.cluster.apply(&store.to_string()).await?;
        scene.start_operator(&[]).await?;
        let names: Vec<&str> = auths.iter().map(|(name, _)| *name).chain(["ca"]).collect();
        for name in &names {
            scene
                .wait_ready(
                    "clustersecretstore",
                    &format!("{}-{name}", scene.class),
                    "False",
                    "",
                )
                .await?;
        }
        // A Vault that says what it was told, and more.
        let (echo, proxy) = (
            canaries.plain("what a server echoes"),
            Proxy::start(scene.vault.socket()?).await?,
        );
        for (status, body) in [
            (400, format!("{{\"errors\":[\"cannot parse {echo}\"]}}")),
            (
                403,
                format!("{{\"errors\":[\"permission denied: {echo}\"], \"warnings\": [\"{echo}\"]}}"),
            ),
            (500, format!("{echo}: internal error")),
            (
                200,
                format!("{{\"auth\": {{\"client_token\": \"{echo}\", \"lease_duration\": \"{echo}\"}}}}"),
            ),
            (200, format!("{{\"auth\": {{\"client_token\": \"{echo}\\n\"}}}}")),
            (200, format!("{{\"auth\": \"{echo}\"")),
            (307, echo.clone()),
        ] {
            let location = format!("Location: http://127.0.0.1:1/{echo}");
            proxy.set(Mode::Answers(vec![Answer::http(
                "/v1/auth/",
                status,
                &location,
                &body,
            )]));
            for (name, auth) in &auths {
                let mut store = scene.store_manifest(&format!("http://{}", proxy.address()), auth);
                store["metadata"]["name"] = json!(format!("{}-{name}", scene.class));
                scene.cluster.apply(&store.to_string()).await?;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            // The same address with another answer: another store.
            for name in &names[..auths.len()] {
                let args = ["delete", "clustersecretstore", &format!("{}-{name}", scene.class)];
                scene.cluster.kubectl(&args, "").await?;
            }
        }
        check(&scene, &canaries).await?;
        scene.operator().terminate()?;
        canaries.check("the log of its end", &scene.operator().logs())
    });
}

#[test]
fn no_level_of_the_log_shows_what_libraries_are_handed() {
    play(async {
        let mut canaries = Canaries::default();
        let mut scene = Scene::without_operator("canary-logs").await?;
        scene
            .vault
            .put("app", json!({"value": canaries.plain("a value")}))
            .await?;
        scene.store(scene.vault.address()).await?;
        let libraries = "--loglevel=trace,hyper::proto=trace,rustls::client=trace,vaultrs::api=trace,kube_client::client=trace";
        let mut options = scene.options(&[libraries]);
        options.env.push(("RUST_LOG".into(), "trace".into()));
        let refused = keyferry_testbed::Operator::start(scene.cluster, options).await?;
        let Err(error) = refused.wait_ready().await else {
            bail!("a list of levels was taken");
        };
        ensure!(
            format!("{error:#}").contains("is not one of trace, debug, info, warn, error"),
            "{error:#}"
        );
        let mut options = scene.options(&["--log-format=json"]);
        options.env.push(("RUST_LOG".into(), "trace".into()));
        options.env.push(("RUST_BACKTRACE".into(), "full".into()));
        let operator = keyferry_testbed::Operator::start(scene.cluster, options).await?;
        operator.wait_ready().await?;
        scene.operator = Some(operator);
        scene
            .external_secret("app", json!({"data": [one("value", "app", "value")]}))
            .await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        check(&scene, &canaries).await
    });
}
