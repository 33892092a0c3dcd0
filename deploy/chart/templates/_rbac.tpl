{{/* What the operator does inside of a namespace that it serves. */}}
{{- define "keyferry.namespacedRules" -}}
- apiGroups: ["external-secrets.io"]
  resources: ["externalsecrets"]
  # Patch: finalizers that External Secrets Operator left behind are removed.
  verbs: ["list", "watch", "patch"]
- apiGroups: ["external-secrets.io"]
  resources: ["externalsecrets/status"]
  verbs: ["patch"]
{{- if .Values.openshiftFinalizers }}
# Owner references with blockOwnerDeletion, where the API server checks the right to set them.
- apiGroups: ["external-secrets.io"]
  resources: ["externalsecrets/finalizers"]
  verbs: ["update"]
{{- end }}
- apiGroups: ["external-secrets.io"]
  resources: ["secretstores"]
  verbs: ["list", "watch"]
{{- if .Values.processSecretStore }}
- apiGroups: ["external-secrets.io"]
  resources: ["secretstores/status"]
  verbs: ["patch"]
{{- end }}
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["get", "list", "watch", "create", "update", "delete"]
- apiGroups: [""]
  resources: ["configmaps", "serviceaccounts"]
  verbs: ["get", "list", "watch"]
{{- if .Values.genericTargets.enabled }}
- apiGroups: [""]
  resources: ["configmaps"]
  verbs: ["create", "update", "delete"]
{{- range .Values.genericTargets.resources }}
- apiGroups: [{{ .apiGroup | quote }}]
  resources: {{ toJson .resources }}
  verbs: {{ toJson .verbs }}
{{- end }}
{{- end }}
{{- if and .Values.rbac.serviceAccountTokenCreate (not .Values.rbac.serviceAccountTokens) }}
- apiGroups: [""]
  resources: ["serviceaccounts/token"]
  verbs: ["create"]
{{- end }}
- apiGroups: [""]
  resources: ["events"]
  verbs: ["create"]
{{- end }}

{{/* What exists only cluster-wide. */}}
{{- define "keyferry.clusterRules" -}}
- apiGroups: [""]
  resources: ["namespaces"]
  {{- if include "keyferry.scoped" . }}
  resourceNames: {{ splitList "," (include "keyferry.namespaces" .) | toJson }}
  {{- end }}
  verbs: ["list", "watch"]
{{- if include "keyferry.clusterStores" . }}
- apiGroups: ["external-secrets.io"]
  resources: ["clustersecretstores"]
  verbs: ["list", "watch"]
- apiGroups: ["external-secrets.io"]
  resources: ["clustersecretstores/status"]
  verbs: ["patch"]
{{- end }}
{{- end }}

{{/*
A ClusterRole for the operator's ServiceAccount with its ClusterRoleBinding.
Arguments: context, name, rules (YAML text).
*/}}
{{- define "keyferry.clusterRole" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .name }}
  labels:
    {{- include "keyferry.labels" .context | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "keyferry.labels" .context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .name }}
{{ include "keyferry.subjects" .context }}
{{- end }}

{{/*
A Role for the operator's ServiceAccount with its RoleBinding.
Arguments: context, namespace, name, rules (YAML text).
*/}}
{{- define "keyferry.role" -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "keyferry.labels" .context | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "keyferry.labels" .context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
{{ include "keyferry.subjects" .context }}
{{- end }}

{{- define "keyferry.subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "keyferry.serviceAccountName" . }}
    namespace: {{ include "keyferry.namespace" . }}
{{- end }}
