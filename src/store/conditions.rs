//! Which namespaces may use a ClusterSecretStore. Checked before anything is read (promise 7).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use regex::bytes::Regex;

use crate::api::store::StoreCondition;
use crate::template::re2;

/// Regular expressions of one store: compiling one takes up to tens of milliseconds.
const EXPRESSIONS_MAX: usize = 100;

/// The label that every namespace carries with its own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The conditions of a store, with their expressions compiled.
#[derive(Clone, Debug, Default)]
pub struct NamespaceRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
enum Rule {
    Labels(LabelSelector),
    Name(String),
    Regex(Regex),
}

impl NamespaceRules {
    /// Compiles the conditions.
    ///
    /// # Errors
    /// The expression that is not valid, and where it stands.
    pub fn compile(conditions: &[StoreCondition]) -> Result<Self, String> {
        let expressions = conditions
            .iter()
            .map(|condition| condition.namespace_regexes.len());
        if expressions.sum::<usize>() > EXPRESSIONS_MAX {
            return Err(format!(
                "spec.conditions have more than {EXPRESSIONS_MAX} namespaceRegexes together; use fewer"
            ));
        }
        let mut rules = Vec::new();
        for (i, condition) in conditions.iter().enumerate() {
            if let Some(selector) = &condition.namespace_selector {
                check(selector).map_err(|why| format!("spec.conditions[{i}].namespaceSelector.{why}"))?;
                rules.push(Rule::Labels(selector.clone()));
            }
            rules.extend(condition.namespaces.iter().cloned().map(Rule::Name));
            for (j, expression) in condition.namespace_regexes.iter().enumerate() {
                let regex = re2::compile(expression).map_err(|e| {
                    format!("failed to compile {j}th namespace regex in {i}th condition: '{expression}': {e}")
                })?;
                rules.push(Rule::Regex(regex));
            }
            if condition.namespace_selector.is_none()
                && condition.namespaces.is_empty()
                && condition.namespace_regexes.is_empty()
            {
                // An empty condition matches nothing, and must not open the store to everybody.
                rules.push(Rule::Name(String::new()));
            }
        }
        Ok(Self { rules })
    }

    /// Whether every namespace may use the store.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the namespace may use the store. `labels` are those of the namespace. If they are unknown, only a
    /// selector that asks for nothing but the name can match.
    #[must_use]
    pub fn allow(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.is_open()
            || self.rules.iter().any(|rule| match rule {
                Rule::Name(name) => name == namespace,
                Rule::Regex(regex) => re2::is_match(regex, namespace.as_bytes()),
                Rule::Labels(selector) => match labels {
                    Some(labels) => matches(selector, namespace, labels),
                    None => {
                        asks_for_the_name_only(selector) && matches(selector, namespace, &BTreeMap::new())
                    }
                },
            })
    }

    /// Whether labels other than the name may decide.
    #[must_use]
    pub fn look_at_labels(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule, Rule::Labels(selector) if !asks_for_the_name_only(selector)))
    }
}

fn asks_for_the_name_only(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.iter().flatten().map(|(key, _)| key);
    let expressions = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|wanted| &wanted.key);
    labels.chain(expressions).all(|key| key == NAME_LABEL)
}

/// What Kubernetes asks of a selector.
fn check(selector: &LabelSelector) -> Result<(), String> {
    for (i, wanted) in selector.match_expressions.iter().flatten().enumerate() {
        let values = wanted.values.iter().flatten().count();
        let why = match (wanted.operator.as_str(), values) {
            ("In" | "NotIn", 0) => format!("needs values for the operator {}", wanted.operator),
            ("Exists" | "DoesNotExist", 1..) => {
                format!("must have no values for the operator {}", wanted.operator)
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => continue,
            (other, _) => format!("has the operator '{other}'; write In, NotIn, Exists or DoesNotExist"),
        };
        return Err(format!("matchExpressions[{i}] {why}"));
    }
    Ok(())
}

fn matches(selector: &LabelSelector, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let label = |key: &str| match labels.get(key) {
        Some(value) => Some(value.as_str()),
        None => (key == NAME_LABEL).then_some(namespace),
    };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| label(key) == Some(value.as_str()));
    equal
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| fulfils(requirement, label(&requirement.key)))
}

fn fulfils(requirement: &LabelSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || {
        requirement
            .values
            .iter()
            .flatten()
            .any(|wanted| Some(wanted.as_str()) == value)
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // An operator that nobody knows must not open the store.
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allowed(conditions: serde_json::Value, namespace: &str, labels: &[(&str, &str)]) -> bool {
        let conditions: Vec<StoreCondition> = serde_json::from_value(conditions).unwrap();
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_string(), (*v).to_string()))
            .collect();
        NamespaceRules::compile(&conditions)
            .unwrap()
            .allow(namespace, Some(&labels))
    }

    #[test]
    fn a_store_with_too_many_expressions_is_refused() {
        let compiled = |conditions: usize| {
            let condition = json!({"namespaceRegexes": ["a", "b"]});
            let conditions: Vec<StoreCondition> =
                serde_json::from_value(json!(vec![condition; conditions])).unwrap();
            NamespaceRules::compile(&conditions)
        };
        assert!(compiled(50).is_ok());
        assert!(
            compiled(51)
                .unwrap_err()
                .contains("more than 100 namespaceRegexes")
        );
    }

    #[test]
    fn a_store_without_conditions_is_open() {
        assert!(allowed(json!([]), "a", &[]));
    }

    #[test]
    fn any_condition_is_enough_and_none_is_not() {
        let conditions = json!([{"namespaces": ["other"]}, {"namespaceRegexes": ["^team-"]}]);
        assert!(allowed(conditions.clone(), "team-a", &[]));
        assert!(!allowed(conditions, "db", &[]));
    }

    #[test]
    fn a_selector_must_match_in_full() {
        let conditions = json!([{"namespaceSelector": {"matchLabels": {"a": "1", "b": "2"}}}]);
        assert!(!allowed(conditions.clone(), "db", &[("a", "1")]));
        assert!(allowed(conditions, "db", &[("a", "1"), ("b", "2")]));
        assert!(allowed(json!([{"namespaceSelector": {}}]), "db", &[]));
    }

    #[test]
    fn expressions_are_understood() {
        let conditions = json!([{"namespaceSelector": {"matchExpressions": [
            {"key": "env", "operator": "NotIn", "values": ["prod"]}, {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["db"]}
        ]}}]);
        assert!(allowed(conditions.clone(), "db", &[]));
        assert!(!allowed(conditions.clone(), "db", &[("env", "prod")]));
        assert!(!allowed(conditions, "web", &[]));
    }

    #[test]
    fn an_empty_condition_opens_nothing() {
        assert!(!allowed(json!([{}]), "db", &[]));
    }

    fn refusal(conditions: serde_json::Value) -> String {
        let conditions: Vec<StoreCondition> = serde_json::from_value(conditions).unwrap();
        NamespaceRules::compile(&conditions).unwrap_err()
    }

    #[test]
    fn a_bad_expression_is_named() {
        // The last one is valid for the crate regex, and not for Go.
        for bad in ["(", "a(?=b)", "a++", "(?x)a b"] {
            let error = refusal(json!([{"namespaceRegexes": ["a", bad]}]));
            let start = format!("failed to compile 1th namespace regex in 0th condition: '{bad}'");
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn expressions_are_those_of_go_and_not_anchored() {
        for (expression, yes, no) in [
            ("eam-", "team-a", "db"),
            ("^team-[a-z]$", "team-a", "team-ab"),
            ("^(dev|test)\\d*$", "dev12", "devs"),
            ("", "any", ""),
        ] {
            let conditions = json!([{"namespaceRegexes": [expression]}]);
            assert!(allowed(conditions.clone(), yes, &[]), "{expression} {yes}");
            assert!(
                no.is_empty() || !allowed(conditions, no, &[]),
                "{expression} {no}"
            );
        }
    }

    #[test]
    fn a_selector_that_kubernetes_would_refuse_is_named() {
        for (wanted, why) in [
            (
                json!({"key": "a", "operator": "Is"}),
                "has the operator 'Is'; write In, NotIn",
            ),
            (
                json!({"key": "a", "operator": "In"}),
                "needs values for the operator In",
            ),
            (
                json!({"key": "a", "operator": "NotIn", "values": []}),
                "needs values for the operator NotIn",
            ),
            (
                json!({"key": "a", "operator": "Exists", "values": ["b"]}),
                "must have no values",
            ),
        ] {
            let fine = json!({"key": "a", "operator": "Exists"});
            let error = refusal(
                json!([{"namespaces": ["x"]}, {"namespaceSelector": {"matchExpressions": [fine, wanted]}}]),
            );
            let start = "spec.conditions[1].namespaceSelector.matchExpressions[1] ";
            assert!(error.starts_with(start) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn without_the_labels_only_the_name_can_be_judged_and_nothing_is_opened_by_chance() {
        let allows = |conditions: serde_json::Value| {
            let conditions: Vec<StoreCondition> = serde_json::from_value(conditions).unwrap();
            NamespaceRules::compile(&conditions).unwrap().allow("db", None)
        };
        let expression =
            |wanted: serde_json::Value| json!([{"namespaceSelector": {"matchExpressions": [wanted]}}]);
        assert!(allows(
            json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "db"}}}])
        ));
        assert!(allows(json!([{"namespaces": ["db"]}])) && allows(json!([{"namespaceSelector": {}}])));
        assert!(!allows(
            json!([{"namespaceSelector": {"matchLabels": {"a": "b"}}}])
        ));
        assert!(!allows(expression(
            json!({"key": "a", "operator": "NotIn", "values": ["b"]})
        )));
        assert!(!allows(expression(
            json!({"key": "a", "operator": "DoesNotExist"})
        )));
    }
}
