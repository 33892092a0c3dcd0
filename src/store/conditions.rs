//! Which namespaces may use a ClusterSecretStore. Checked before anything is read (promise 7).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use regex::Regex;

use crate::api::store::StoreCondition;

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
        let mut rules = Vec::new();
        for (i, condition) in conditions.iter().enumerate() {
            rules.extend(condition.namespace_selector.clone().map(Rule::Labels));
            rules.extend(condition.namespaces.iter().cloned().map(Rule::Name));
            for (j, expression) in condition.namespace_regexes.iter().enumerate() {
                let regex = Regex::new(expression).map_err(|e| {
                    format!("failed to compile {j}th namespace regex in {i}th condition: {e}")
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

    /// Whether the namespace may use the store. `labels` are those of the namespace.
    #[must_use]
    pub fn allow(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.rules.is_empty()
            || self.rules.iter().any(|rule| match rule {
                Rule::Name(name) => name == namespace,
                Rule::Regex(regex) => regex.is_match(namespace),
                Rule::Labels(selector) => labels.is_some_and(|labels| matches(selector, namespace, labels)),
            })
    }

    /// Whether a change of a namespace's labels may matter.
    #[must_use]
    pub fn look_at_labels(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Rule::Labels(_)))
    }
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

    #[test]
    fn a_bad_expression_is_named() {
        let conditions: Vec<StoreCondition> =
            serde_json::from_value(json!([{"namespaceRegexes": ["a", "("]}])).unwrap();
        let error = NamespaceRules::compile(&conditions).unwrap_err();
        assert!(
            error.starts_with("failed to compile 1th namespace regex in 0th condition"),
            "{error}"
        );
    }
}
