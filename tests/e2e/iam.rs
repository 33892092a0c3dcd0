//! Logins by Vault's AWS auth method: the real plugin, and a service of ours in the place of AWS that verifies each
//! signature.

use anyhow::Result;
use keyferry_testbed::Operator;
use serde_json::{Value, json};

use crate::scene::{Scene, one, play};
use crate::sts::{ACCOUNT, AUDIENCE, Sts, Trust};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "AQoDYXdzEPT//////////wEXAMPLE==";

struct Stage {
    scene: Scene,
    sts: Sts,
}

impl Stage {
    /// A Vault whose mount `aws` trusts our service, with the role `reader` for whoever is named here.
    async fn new(name: &str, principals: &[&str]) -> Result<Self> {
        let scene = Scene::without_operator(name).await?;
        let sts = Sts::start().await?;
        scene.vault.enable_plugin("aws", "aws").await?;
        let stage = Self { scene, sts };
        stage.configure("aws", &json!({})).await?;
        stage.write_role("aws", principals).await?;
        stage.scene.vault.put("app", json!({"value": "x"})).await?;
        Ok(stage)
    }

    async fn configure(&self, mount: &str, further: &Value) -> Result<()> {
        let mut config = json!({"sts_endpoint": self.sts.url, "sts_region": "us-east-1", "max_retries": 0});
        if let (Some(config), Some(further)) = (config.as_object_mut(), further.as_object()) {
            config.extend(further.clone());
        }
        let path = format!("auth/{mount}/config/client");
        self.scene.vault.api("POST", &path, &config).await.map(drop)
    }

    async fn write_role(&self, mount: &str, principals: &[&str]) -> Result<()> {
        let principals: Vec<String> = principals
            .iter()
            .map(|name| format!("arn:aws:iam::{ACCOUNT}:{name}"))
            .collect();
        let role = json!({
            "auth_type": "iam", "bound_iam_principal_arn": principals, "resolve_aws_unique_ids": false,
            "token_policies": ["eso-reader"], "token_ttl": "1h",
        });
        let path = format!("auth/{mount}/role/reader");
        self.scene.vault.api("POST", &path, &role).await.map(drop)
    }

    /// Starts the operator with our service in the place of AWS.
    async fn start_operator(&mut self, variables: &[(&str, String)]) -> Result<()> {
        let mut options = self.scene.options(&[]);
        options
            .env
            .push(("AWS_ENDPOINT_URL_STS".into(), self.sts.url.clone()));
        let further = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        options.env.extend(further);
        let operator = Operator::start(self.scene.cluster, options).await?;
        operator.wait_ready().await?;
        self.scene.operator = Some(operator);
        Ok(())
    }

    async fn keys(&self, secret: &str, session: &str) -> Result<()> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws", "namespace": self.scene.namespace},
            "stringData": {"id": "AKIDEXAMPLE\n", "secret": secret, "session": session},
        });
        self.scene.cluster.apply(&manifest.to_string()).await.map(drop)
    }

    fn key(&self, key: &str) -> Value {
        json!({"name": "aws", "namespace": self.scene.namespace, "key": key})
    }

    fn static_keys(&self) -> Value {
        json!({"accessKeyIDSecretRef": self.key("id"), "secretAccessKeySecretRef": self.key("secret")})
    }

    /// Makes the store with these fields beside `vaultRole`.
    async fn store(&self, fields: Value) -> Result<()> {
        let mut iam = json!({"vaultRole": "reader"});
        if let (Some(iam), Some(fields)) = (iam.as_object_mut(), fields.as_object()) {
            iam.extend(fields.clone());
        }
        let auth = json!({"iam": iam});
        self.scene.store_with(self.scene.vault.address(), &auth).await
    }

    /// Waits until the store is Ready, and a new value comes through it.
    async fn serves(&self, value: &str) -> Result<()> {
        self.scene.wait_store("True", "Valid").await?;
        self.scene.vault.put("app", json!({"value": value})).await?;
        self.scene.force_sync("app").await?;
        self.scene.wait_value("app", "value", value).await
    }

    async fn external_secret(&self) -> Result<()> {
        let spec = json!({"refreshInterval": "1h", "data": [one("value", "app", "value")]});
        self.scene.external_secret("app", spec).await
    }

    /// The operator logs at every level here, and none of what AWS keeps secret may be found.
    fn nothing_leaked(&self) {
        let logs = self.scene.operator().logs();
        for secret in self.sts.secrets() {
            assert!(!logs.contains(&secret), "a secret of AWS is in the logs");
        }
    }
}

#[test]
fn keys_from_secrets_log_in_and_wrong_ones_are_told_apart() {
    play(async {
        let mut stage = Stage::new("iam-keys", &["user/reader"]).await?;
        stage.sts.user("reader", "AKIDEXAMPLE", SECRET, None);
        stage.keys("not-the-secret", SESSION).await?;
        stage.start_operator(&[]).await?;
        stage.external_secret().await?;
        stage.store(json!({"secretRef": stage.static_keys()})).await?;
        let message = stage.scene.wait_store("False", "SignatureDoesNotMatch").await?;
        assert!(
            message.contains("role 'reader' (mount 'aws')") && message.contains("secret access key"),
            "{message}"
        );
        // The Secret is repaired: no waiting for the next try.
        stage.keys(SECRET, SESSION).await?;
        stage.serves("static").await?;
        // The same with a session token, which AWS wants to see from now on.
        stage.sts.user("reader", "AKIDEXAMPLE", SECRET, Some(SESSION));
        let mut secrets = stage.static_keys();
        stage
            .store(json!({"secretRef": secrets, "region": "eu-south-2"}))
            .await?;
        stage.scene.wait_store("False", "InvalidClientTokenId").await?;
        secrets["sessionTokenSecretRef"] = stage.key("session");
        stage
            .store(json!({"secretRef": secrets, "region": "eu-south-2"}))
            .await?;
        stage.serves("session").await?;
        let calls = stage.sts.calls();
        assert!(
            calls.contains(&"GetCallerIdentity sts.amazonaws.com".into())
                && calls.contains(&"GetCallerIdentity sts.eu-south-2.amazonaws.com".into()),
            "{calls:?}"
        );
        stage.nothing_leaked();
        Ok(())
    });
}

#[test]
fn the_server_id_is_signed_and_other_refusals_of_vault_are_told_apart() {
    play(async {
        let mut stage = Stage::new("iam-refused", &["user/other"]).await?;
        stage.sts.user("reader", "AKIDEXAMPLE", SECRET, None);
        stage.keys(SECRET, SESSION).await?;
        stage.start_operator(&[]).await?;
        stage.external_secret().await?;
        let secrets = stage.static_keys();
        stage.store(json!({"secretRef": secrets})).await?;
        let message = stage
            .scene
            .wait_store("False", "does not belong to the role")
            .await?;
        assert!(message.contains("bound_iam_principal_arn"), "{message}");
        stage
            .store(json!({"secretRef": secrets, "vaultRole": "none"}))
            .await?;
        stage
            .scene
            .wait_store("False", "has no role 'none' at auth mount 'aws'")
            .await?;
        stage.scene.vault.enable_auth("aws", "second/aws").await?;
        let header = json!({"iam_server_id_header_value": "vault.example.com"});
        stage.configure("second/aws", &header).await?;
        stage.write_role("second/aws", &["user/reader"]).await?;
        stage
            .store(json!({"secretRef": secrets, "path": "second/aws"}))
            .await?;
        let message = stage
            .scene
            .wait_store("False", "X-Vault-AWS-IAM-Server-ID")
            .await?;
        assert!(message.contains("auth.iam.vaultAwsIamServerID"), "{message}");
        let server = "vault.example.com";
        let fields = json!({"secretRef": secrets, "path": "second/aws", "vaultAwsIamServerID": server});
        stage.store(fields).await?;
        stage.serves("server id").await?;
        // Nothing listens where Vault asks.
        let nowhere = json!({"sts_endpoint": "http://127.0.0.1:1"});
        stage.configure("aws", &nowhere).await?;
        stage.store(json!({"secretRef": secrets})).await?;
        stage
            .scene
            .wait_store("False", "check sts_endpoint and sts_region of the mount")
            .await?;
        stage.nothing_leaked();
        Ok(())
    });
}

#[test]
fn roles_are_assumed_with_keys_or_with_the_token_of_an_annotated_service_account() {
    play(async {
        let mut stage = Stage::new("iam-roles", &["role/by-id", "role/by-account"]).await?;
        stage.sts.user("reader", "AKIDEXAMPLE", SECRET, None);
        let by_id = stage.sts.role("by-id", Trust::ExternalId("external 1+2"));
        let namespace = stage.scene.namespace.clone();
        let trust = Trust::ServiceAccount(format!("{namespace}:reader"));
        let by_account = stage.sts.role("by-account", trust);
        stage.keys(SECRET, SESSION).await?;
        stage.start_operator(&[]).await?;
        stage.external_secret().await?;
        let secrets = stage.static_keys();
        stage
            .store(json!({"secretRef": secrets, "role": by_id, "externalID": "wrong"}))
            .await?;
        let message = stage.scene.wait_store("False", "AccessDenied").await?;
        assert!(
            message.contains(&by_id) && message.contains(&format!("Secret {namespace}/aws")),
            "{message}"
        );
        stage
            .store(json!({"secretRef": secrets, "role": by_id, "externalID": "external 1+2"}))
            .await?;
        stage.serves("assumed").await?;
        let cluster = stage.scene.cluster;
        cluster
            .kubectl(&["create", "serviceaccount", "reader", "-n", &namespace], "")
            .await?;
        let jwt = json!({"serviceAccountRef": {"name": "reader", "namespace": namespace}});
        stage.store(json!({"jwt": jwt})).await?;
        stage
            .scene
            .wait_store("False", "eks.amazonaws.com/role-arn")
            .await?;
        let annotate = |value: String| async move {
            let args = [
                "annotate",
                "serviceaccount",
                "reader",
                "-n",
                &namespace,
                &value,
                "--overwrite",
            ];
            cluster.kubectl(&args, "").await.map(drop)
        };
        annotate.clone()(format!("eks.amazonaws.com/role-arn={by_id}")).await?;
        let message = stage.scene.wait_store("False", "AccessDenied").await?;
        assert!(message.contains("with the token of ServiceAccount"), "{message}");
        annotate(format!("eks.amazonaws.com/role-arn={by_account}")).await?;
        stage.serves("annotated").await?;
        stage.nothing_leaked();
        Ok(())
    });
}

#[test]
fn the_operators_own_aws_identity_is_used_where_the_store_names_none() {
    play(async {
        let mut stage = Stage::new("iam-own", &["role/operator"]).await?;
        stage.start_operator(&[]).await?;
        stage.external_secret().await?;
        stage.store(json!({})).await?;
        let message = stage
            .scene
            .wait_store("False", "no AWS identity of its own")
            .await?;
        assert!(message.contains("auth.iam.secretRef"), "{message}");
        stage.scene.operator().terminate()?;
        let role = stage
            .sts
            .role("operator", Trust::ServiceAccount("security:keyferry".into()));
        let args = [
            "create",
            "token",
            "keyferry",
            "-n",
            "security",
            "--audience",
            AUDIENCE,
        ];
        let token = stage.scene.cluster.kubectl(&args, "").await?;
        let file = stage
            .scene
            .cluster
            .folder()
            .join(format!("{}-token", stage.scene.namespace));
        std::fs::write(&file, token)?;
        let file = file.display().to_string();
        stage
            .start_operator(&[("AWS_WEB_IDENTITY_TOKEN_FILE", file), ("AWS_ROLE_ARN", role)])
            .await?;
        stage.serves("own").await?;
        stage.nothing_leaked();
        Ok(())
    });
}
