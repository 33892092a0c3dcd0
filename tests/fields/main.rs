//! Every field of an ExternalSecret's spec does something, or is refused by name: the test walks the
//! schema that we publish, and wants for each field two specs that differ in it alone and a result that
//! differs too. A field that is accepted and ignored would be found here.
#![allow(clippy::unwrap_used, clippy::panic)]

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use keyferry::api::crds;
use keyferry::api::external_secret::ExternalSecret;
use keyferry::controller::due::{self, Circumstances};
use keyferry::controller::targets::State;
use keyferry::secret::SecretBytes;
use keyferry::sync::assemble::{Answer, Assembled, assemble};
use keyferry::sync::plan::{Plan, What, plan};
use keyferry::sync::shape::{Shape, Shaped, SourceKind, SourceRef, Sources};
use keyferry::target::hash::{DataHasher, InstallationKey};
use keyferry::target::manifest::{Action as ManifestAction, plan as plan_manifest};
use keyferry::target::plan::{Action, Wanted, plan as plan_target};
use keyferry::template::{Delims, funcs};
use keyferry::vault::json::Json;
use serde_json::{Value, json};

use table::Effect::{Differs, Nothing, Refused};

fn leaves(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            leaves(property, &format!("{path}.{name}"), into);
        }
    } else if schema["type"] == "array" {
        leaves(&schema["items"], &format!("{path}[]"), into);
    } else {
        into.insert(path.to_owned());
    }
}

fn fields() -> BTreeSet<String> {
    let crd = crds::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == "ExternalSecret")
        .unwrap();
    let version = serde_json::to_value(&crd.spec.versions[0]).unwrap();
    let mut found = BTreeSet::new();
    leaves(
        &version["schema"]["openAPIV3Schema"]["properties"]["spec"],
        "spec",
        &mut found,
    );
    found
}

fn object(spec: &Value) -> ExternalSecret {
    let synced = json!({"syncedResourceVersion": "1-a", "refreshTime": "2026-01-01T00:00:00Z"});
    serde_json::from_value(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"namespace": "db", "name": "app", "uid": "u"}, "spec": spec, "status": synced,
    }))
    .unwrap()
}

/// What a store of the test answers.
fn answers(plan: &Plan) -> Vec<Answer> {
    let one =
        json!({"user": "YWRtaW4=", "pass": "aHVudGVyMg==", "object": {"inner key": "x"}, "odd key": "Aa=="});
    let objects = json!({"one": {"host": "a", "x": "1"}, "two": {"host": "b"}});
    let read = plan.reads.iter();
    read.map(|read| {
        let mut value = if read.key == "objects" {
            objects.clone()
        } else {
            one.clone()
        };
        value["of"] = format!("{}-{:?}", read.key, read.version).into();
        if read.key == "objects" {
            value.as_object_mut().unwrap().remove("of");
        }
        match &read.what {
            What::Find(_) => Answer::Many(BTreeMap::from([("app/x".to_owned(), "{}".into())])),
            _ => Answer::Found(Json::parse(value.to_string().as_bytes()).unwrap().into()),
        }
    })
    .collect()
}

fn plain(data: &BTreeMap<String, SecretBytes>) -> String {
    let pairs = data.iter();
    pairs
        .map(|(key, value)| format!("{key}={:?};", String::from_utf8_lossy(value.expose())))
        .collect()
}

fn shaped(object: &ExternalSecret, assembled: &Assembled) -> Option<Result<Shaped, String>> {
    let template = object.spec.template()?;
    let content = |name: &str| {
        let texts = [("first", "a"), ("second", "b")];
        texts
            .map(|(key, text)| (key.to_owned(), format!("{text}: {name}").as_str().into()))
            .into()
    };
    let sources: Sources = [SourceKind::ConfigMap, SourceKind::Secret]
        .into_iter()
        .flat_map(|kind| {
            ["one", "two"].map(|name| {
                let reference = SourceRef {
                    kind,
                    name: name.to_owned(),
                };
                (reference, content(name))
            })
        })
        .collect();
    let shape = Shape::prepare(template, false, &sources, &Delims::default());
    Some(
        shape
            .and_then(|shape| shape.render(&assembled.data))
            .map_err(|error| error.to_string()),
    )
}

/// All that the pure rooms make of a spec, as text.
fn result(spec: &Value) -> Result<String, String> {
    let object = object(spec);
    let plan = plan(&object.spec, "db").map_err(|refusal| refusal.field)?;
    let interval = object
        .spec
        .refresh_interval()
        .unwrap()
        .as_std()
        .unwrap_or(Duration::ZERO);
    let known = Circumstances {
        now: "2026-01-02T03:00:00Z".parse().unwrap(),
        version: "1-a",
        last_success: None,
        pending: false,
        template_changed: false,
        store_changed: false,
        target: State::Intact,
        lease_due: None,
        retry: None,
        pause: None,
        windows: plan.windows.as_ref(),
    };
    let due = due::need(&object, interval, &known);
    let mut text = format!("{plan:?} {due:?} ");
    let assembled = match assemble(&plan, &answers(&plan)) {
        Ok(assembled) => assembled,
        Err(error) => return Ok(format!("{text} {error}")),
    };
    text += &plain(&assembled.data);
    let shaped = shaped(&object, &assembled);
    let shaped = match shaped.transpose() {
        Ok(shaped) => shaped,
        Err(error) => return Ok(format!("{text} {error}")),
    };
    let wanted = Wanted {
        assembled: &assembled,
        shaped: shaped.as_ref(),
    };
    let existing: Secret = serde_json::from_value(json!({
        "metadata": {"name": object.target_name(), "namespace": "db"}, "data": {"theirs": "MQ=="},
    }))
    .unwrap();
    if let Some(manifest) = object.spec.manifest() {
        let planned = plan_manifest(&object, manifest, None, wanted).map_err(|error| error.to_string())?;
        if let ManifestAction::Create(made) = planned.action {
            text += &format!("{made:?}");
        }
    }
    for existing in [None, Some(&existing)] {
        let planned = plan_target(
            &object,
            existing,
            wanted,
            &DataHasher::new(InstallationKey::new(b"k", "uid")),
        );
        text += &planned.map_or_else(
            |error| error.to_string(),
            |planned| match &planned.action {
                // Debug of what is planned shows no data.
                Action::Create(secret) | Action::Update(secret) => format!("{planned:?} {secret:?}"),
                Action::Nothing | Action::Delete { .. } => format!("{planned:?}"),
            },
        );
    }
    Ok(text)
}

#[test]
fn every_field_of_the_schema_is_served_or_refused_by_name() {
    let table = table::all();
    let known: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(
        fields(),
        known,
        "the schema's fields and those of this test differ"
    );
    let mut wrong = Vec::new();
    for (field, effect) in &table {
        let held = match effect {
            Differs(base, changed) => {
                result(base).is_ok() && result(changed).is_ok() && result(base) != result(changed)
            }
            Refused(spec, name) => result(spec) == Err((*name).to_owned()),
            Nothing(base, changed, _) => result(base).is_ok() && result(base) == result(changed),
        };
        if !held {
            let why = if let Nothing(_, _, why) = effect { why } else { "" };
            wrong.push(format!("{field} {why}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "these fields do not do what this test says: {wrong:#?}"
    );
}

/// The names of ESO 2.9: Go's own functions, its copy of sprig, and its own.
const FUNCTIONS: &str = "
    and or not eq ne lt le gt ge index slice len print printf println html js urlquery call
    abbrev abbrevboth add add1 add1f addf adler32sum ago all any append atoi b32dec b32enc b64dec b64enc base bcrypt
    biggest buildCustomCert camelcase cat ceil chunk clean coalesce compact concat contains date dateInZone dateModify
    date_in_zone date_modify decryptAES deepCopy deepEqual default derivePassword dict dig dir div divf duration
    durationRound empty encryptAES ext fail first float64 floor fromJson genCA genCAWithKey genPrivateKey
    genSelfSignedCert genSelfSignedCertWithKey genSignedCert genSignedCertWithKey get has hasKey hasPrefix hasSuffix
    hello hexdec htmlDate htmlDateInZone htpasswd indent initial initials int int64 isAbs join kebabcase keys kindIs
    kindOf last list lower max maxf merge mergeOverwrite min minf mod mul mulf must_date_modify mustAppend mustChunk
    mustCompact mustDateModify mustDeepCopy mustFirst mustFromJson mustHas mustInitial mustLast mustMerge
    mustMergeOverwrite mustPrepend mustPush mustRegexFind mustRegexFindAll mustRegexMatch mustRegexReplaceAll
    mustRegexReplaceAllLiteral mustRegexSplit mustRest mustReverse mustSlice mustToDate mustToJson mustToPrettyJson
    mustToRawJson mustUniq mustWithout nindent nospace now omit osBase osClean osDir osExt osIsAbs pick pluck plural
    prepend push quote randAlpha randAlphaNum randAscii randBytes randInt randNumeric regexFind regexFindAll regexMatch
    regexQuoteMeta regexReplaceAll regexReplaceAllLiteral regexSplit repeat replace rest reverse round semver
    semverCompare seq set sha1sum sha256sum sha512sum shuffle slice snakecase sortAlpha split splitList splitn squote
    sub subf substr swapcase ternary title toDate toDecimal toJson toPrettyJson toRawJson toString toStrings trim
    trimAll trimPrefix trimSuffix trimall trunc tuple typeIs typeIsLike typeOf uniq unixEpoch unset until untilStep
    untitle upper urlJoin urlParse uuidv4 values without wrap wrapWith
    pkcs12key pkcs12keyPass pkcs12cert pkcs12certPass pemToPkcs12 pemToPkcs12Pass fullPemToPkcs12 fullPemToPkcs12Pass
    pemTruststoreToPKCS12 pemTruststoreToPKCS12Pass filterPEM filterCertChain certSANs jwkPublicKeyPem
    jwkPrivateKeyPem toYaml fromYaml rsaDecrypt";

#[test]
fn every_function_that_eso_offers_to_templates_is_there_and_none_that_reaches_out() {
    let missing: Vec<&str> = FUNCTIONS
        .split_whitespace()
        .filter(|name| funcs::find(name).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    let known: BTreeSet<&str> = FUNCTIONS.split_whitespace().collect();
    let ours = funcs::TABLES.iter().flat_map(|table| table.iter());
    let more: Vec<&str> = ours
        .map(|function| function.name)
        .filter(|name| !known.contains(name))
        .collect();
    assert!(more.is_empty(), "{more:?}");
    for name in [
        "env",
        "expandenv",
        "getHostByName",
        "readFile",
        "getSecretKey",
        "lookup",
    ] {
        assert!(funcs::find(name).is_none(), "{name}");
    }
}
