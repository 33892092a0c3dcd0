//! What the schemas demand beyond the shape of the types: patterns, defaults and CEL rules, so that no
//! admission webhook is needed. Messages are ESO's where it has one.
//!
//! No default stands inside a list: GitOps tools would see a difference for ever.

use serde_json::{Value, json};

const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const KEY: &str = "^[-._a-zA-Z0-9]+$";
/// Go's grammar of durations.
const DURATION: &str = r"^[-+]?(0|([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$";
const CRON: &str = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly)|@every .+|\S+( +\S+){4})$";
const GENERATORS: &[&str] = &[
    "ACRAccessToken",
    "BeyondtrustWorkloadCredentialsDynamicSecret",
    "ClusterGenerator",
    "CloudsmithAccessToken",
    "ECRAuthorizationToken",
    "Fake",
    "GCRAccessToken",
    "GithubAccessToken",
    "GitlabDeployToken",
    "QuayAccessToken",
    "Password",
    "SSHKey",
    "STSSessionToken",
    "UUID",
    "VaultDynamicSecret",
    "Webhook",
    "Grafana",
    "MFA",
];
/// Providers of ESO that Keyferry does not serve: kept as they are, so that replacing ESO's definitions
/// by ours prunes nothing.
const FOREIGN: &[&str] = &[
    "aws",
    "azurekv",
    "akeyless",
    "alibaba",
    "barbican",
    "beyondtrust",
    "beyondtrustworkloadcredentials",
    "bitwardensecretsmanager",
    "chef",
    "cloudrusm",
    "conjur",
    "crd",
    "delinea",
    "device42",
    "doppler",
    "dvls",
    "fortanix",
    "gcpsm",
    "github",
    "gitlab",
    "ibm",
    "infisical",
    "keepersecurity",
    "kubernetes",
    "nebiusmysterybox",
    "ngrok",
    "onboardbase",
    "onepassword",
    "onepasswordSDK",
    "oracle",
    "ovh",
    "passbolt",
    "passworddepot",
    "previder",
    "pulumi",
    "scaleway",
    "secretserver",
    "senhasegura",
    "volcengine",
    "webhook",
    "yandexcertificatemanager",
    "yandexlockbox",
];

/// Takes out what the derive adds and the API server warns of, or ESO does not have.
pub fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            if object
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|f| f.starts_with("uint"))
            {
                object.remove("format");
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The schema at a path such as `spec.data[].secretKey`; a path that leads nowhere leaves no trace,
/// and the test of the shapes finds it.
fn set(schema: &mut Value, path: &str, keywords: &Value) {
    let mut node = schema;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (name, list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        let Some(next) = node.pointer_mut(&format!("/properties/{name}{}", if list { "/items" } else { "" }))
        else {
            return;
        };
        node = next;
    }
    if let (Some(node), Some(keywords)) = (node.as_object_mut(), keywords.as_object()) {
        node.extend(keywords.clone());
    }
}

fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

fn name() -> Value {
    json!({"minLength": 1, "maxLength": 253, "pattern": SUBDOMAIN})
}

fn key() -> Value {
    json!({"minLength": 1, "maxLength": 253, "pattern": KEY})
}

fn opaque() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Rules of ExternalSecret.
pub fn external_secret(schema: &mut Value) {
    for path in [
        "spec.secretStoreRef",
        "spec.data[].sourceRef.storeRef",
        "spec.dataFrom[].sourceRef.storeRef",
    ] {
        set(schema, &format!("{path}.name"), &name());
    }
    let interval = rule(
        &format!("self.matches('{DURATION}')"),
        "write a duration such as 1h, 15m or 1h30m",
    );
    let interval = json!({"default": "1h0m0s", "maxLength": 64, "x-kubernetes-validations": [interval]});
    set(schema, "spec.refreshInterval", &interval);
    set(schema, "spec.syncWindows.windows", &json!({"minItems": 1}));
    set(
        schema,
        "spec.syncWindows.windows[].schedule",
        &json!({"pattern": CRON}),
    );
    // A rule would cost too much inside a list; a pattern's message has to do.
    set(
        schema,
        "spec.syncWindows.windows[].duration",
        &json!({"maxLength": 64, "pattern": DURATION.replace("\\\\", "\\")}),
    );
    set(
        schema,
        "spec.target",
        &json!({"default": {"creationPolicy": "Owner", "deletionPolicy": "Retain"}}),
    );
    // An empty name means the name of the ExternalSecret; ESO's users write it so.
    set(
        schema,
        "spec.target.name",
        &json!({"maxLength": 253, "pattern": format!("^$|{SUBDOMAIN}")}),
    );
    set(schema, "spec.target.creationPolicy", &json!({"default": "Owner"}));
    set(
        schema,
        "spec.target.deletionPolicy",
        &json!({"default": "Retain"}),
    );
    set(
        schema,
        "spec.target.template.engineVersion",
        &json!({"default": "v2"}),
    );
    set(
        schema,
        "spec.target.template.mergePolicy",
        &json!({"default": "Replace"}),
    );
    for field in ["apiVersion", "kind"] {
        set(
            schema,
            &format!("spec.target.manifest.{field}"),
            &json!({"minLength": 1}),
        );
    }
    for source in ["configMap", "secret"] {
        set(
            schema,
            &format!("spec.target.template.templateFrom[].{source}.name"),
            &name(),
        );
        set(
            schema,
            &format!("spec.target.template.templateFrom[].{source}.items[].key"),
            &key(),
        );
    }
    set(schema, "spec.data[].secretKey", &key());
    let one_of = json!({"minProperties": 1, "maxProperties": 1});
    for path in [
        "spec.data[].sourceRef",
        "spec.dataFrom[].sourceRef",
        "spec.dataFrom[].rewrite[]",
    ] {
        set(schema, path, &one_of);
    }
    for path in [
        "spec.data[].sourceRef.generatorRef",
        "spec.dataFrom[].sourceRef.generatorRef",
    ] {
        set(schema, &format!("{path}.kind"), &json!({"enum": GENERATORS}));
        set(schema, &format!("{path}.name"), &name());
    }
    let data_from = [
        rule(
            "(has(self.extract) ? 1 : 0) + (has(self.find) ? 1 : 0) + \
             (has(self.sourceRef) && has(self.sourceRef.generatorRef) ? 1 : 0) <= 1",
            "extract, find, or generatorRef cannot be set at the same time",
        ),
        rule(
            "has(self.extract) || has(self.find) || has(self.sourceRef)",
            "either extract, find, or sourceRef must be set to dataFrom",
        ),
    ];
    set(
        schema,
        "spec.dataFrom[]",
        &json!({"x-kubernetes-validations": data_from}),
    );
    let policy = |name: &str, default: &str| {
        format!("(has(self.target) && has(self.target.{name}) ? self.target.{name} : '{default}')")
    };
    let (deletion, creation) = (
        policy("deletionPolicy", "Retain"),
        policy("creationPolicy", "Owner"),
    );
    let spec = [
        rule(
            "(has(self.data) && size(self.data) > 0) || (has(self.dataFrom) && size(self.dataFrom) > 0)",
            "either data or dataFrom should be specified",
        ),
        rule(
            &format!("!({deletion} == 'Delete' && {creation} in ['Merge', 'None', 'CreateOrMerge'])"),
            "deletionPolicy=Delete must not be used when the controller doesn't own the secret. Please set creationPolicy=Owner",
        ),
        rule(
            &format!("!({deletion} == 'Merge' && {creation} == 'None')"),
            "deletionPolicy=Merge must not be used with creationPolicy=None. There is no Secret to merge with",
        ),
    ];
    set(schema, "spec", &json!({"x-kubernetes-validations": spec}));
    let template = [
        rule(
            "!(has(self.type) && self.type == 'bootstrap.kubernetes.io/token')",
            "template.type=\"bootstrap.kubernetes.io/token\" is not allowed",
        ),
        rule(
            "!(has(self.type) && self.type == 'kubernetes.io/service-account-token' && has(self.metadata) && \
             has(self.metadata.annotations) && 'kubernetes.io/service-account.name' in self.metadata.annotations)",
            "template.type=\"kubernetes.io/service-account-token\" with annotation \"kubernetes.io/service-account.name\" is not allowed",
        ),
    ];
    set(
        schema,
        "spec.target.template",
        &json!({"x-kubernetes-validations": template}),
    );
    status(schema);
}

/// Rules of SecretStore and ClusterSecretStore.
pub fn store(schema: &mut Value) {
    set(
        schema,
        "spec.refreshInterval",
        &json!({"x-kubernetes-int-or-string": true}),
    );
    if let Some(interval) = schema.pointer_mut("/properties/spec/properties/refreshInterval")
        && let Some(interval) = interval.as_object_mut()
    {
        ["type", "format", "anyOf", "oneOf"]
            .iter()
            .for_each(|keyword| drop(interval.remove(*keyword)));
    }
    set(
        schema,
        "spec.conditions[].namespaces",
        &json!({"items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": LABEL}}),
    );
    set(
        schema,
        "spec.provider",
        &json!({"minProperties": 1, "maxProperties": 1, "x-kubernetes-preserve-unknown-fields": true}),
    );
    if let Some(provider) = schema.pointer_mut("/properties/spec/properties/provider")
        && let Some(provider) = provider.as_object_mut()
    {
        provider.remove("additionalProperties");
    }
    if let Some(Value::Object(properties)) =
        schema.pointer_mut("/properties/spec/properties/provider/properties")
    {
        properties.extend(FOREIGN.iter().map(|foreign| ((*foreign).to_string(), opaque())));
    }
    let vault = "spec.provider.vault";
    for provider in [vault, "spec.provider.openBao"] {
        set(schema, &format!("{provider}.version"), &json!({"default": "v2"}));
        set(
            schema,
            &format!("{provider}.caBundle"),
            &json!({"format": "byte"}),
        );
        set(schema, &format!("{provider}.caProvider.name"), &name());
        set(schema, &format!("{provider}.caProvider.key"), &key());
        set(
            schema,
            &format!("{provider}.caProvider.namespace"),
            &json!({"minLength": 1, "maxLength": 63, "pattern": LABEL}),
        );
    }
    for (method, field, default) in [
        ("appRole", "path", "approle"),
        ("kubernetes", "mountPath", "kubernetes"),
        ("ldap", "path", "ldap"),
        ("jwt", "path", "jwt"),
        ("cert", "path", "cert"),
        ("userPass", "path", "userpass"),
        ("gcp", "path", "gcp"),
    ] {
        set(
            schema,
            &format!("{vault}.auth.{method}.{field}"),
            &json!({"default": default}),
        );
    }
    for field in ["secretRef", "workloadIdentity"] {
        set(schema, &format!("{vault}.auth.gcp.{field}"), &opaque());
    }
    let bao = "spec.provider.openBao";
    for (method, default) in [
        ("appRole", "approle"),
        ("kubernetes", "kubernetes"),
        ("userPass", "userpass"),
    ] {
        set(
            schema,
            &format!("{bao}.auth.{method}.path"),
            &json!({"default": default}),
        );
    }
    let ca = [rule(
        "!(has(self.caBundle) && has(self.caProvider))",
        "at most one of caBundle and caProvider may be set",
    )];
    set(schema, bao, &json!({"x-kubernetes-validations": ca}));
    let auth = [rule(
        "[has(self.appRole), has(self.tokenSecretRef), has(self.userPass), has(self.kubernetes)].filter(set, set).size() == 1",
        "exactly one of appRole, tokenSecretRef, userPass and kubernetes must be set",
    )];
    set(
        schema,
        &format!("{bao}.auth"),
        &json!({"x-kubernetes-validations": auth}),
    );
    let cas = [rule(
        "!(has(self.checkAndSet) && has(self.checkAndSet.required) && self.checkAndSet.required && has(self.version) && \
         self.version == 'v1')",
        "checkAndSet is not supported with Vault KV version v1",
    )];
    set(schema, vault, &json!({"x-kubernetes-validations": cas}));
    status(schema);
}

fn status(schema: &mut Value) {
    set(
        schema,
        "status.conditions[]",
        &json!({"required": ["type", "status"]}),
    );
}
