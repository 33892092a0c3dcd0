{{/* Names */}}

{{- define "keyferry.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "keyferry.fullname" -}}
{{- $name := include "keyferry.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "keyferry.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "keyferry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "keyferry.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* A digest given as the tag is joined by "@". */}}
{{- define "keyferry.image" -}}
{{- $repository := .Values.global.repository | default .Values.image.repository }}
{{- $tag := .Values.image.tag | default .Chart.AppVersion | toString }}
{{- printf "%s%s%s" $repository (hasPrefix "sha256:" $tag | ternary "@" ":") $tag }}
{{- end }}

{{/* Labels */}}

{{- define "keyferry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keyferry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "keyferry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "keyferry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The namespaces that the operator is limited to, as a comma list; empty means all.
Sorted, so that the order in which they are given does not restart the pod.
*/}}
{{- define "keyferry.namespaces" -}}
{{- concat (compact (list .Values.scopedNamespace)) .Values.scopedNamespaces | uniq | sortAlpha | join "," }}
{{- end }}

{{/*
"true" if only Roles may be made. A scope without a namespace is refused: rendering ClusterRoles
instead would silently grant what scopedRBAC was set to prevent.
*/}}
{{- define "keyferry.scoped" -}}
{{- if .Values.scopedRBAC }}
{{- if not (include "keyferry.namespaces" .) }}
{{- fail "scopedRBAC is set, but no namespace is: set scopedNamespace or scopedNamespaces" }}
{{- end }}
{{- true }}
{{- end }}
{{- end }}

{{- define "keyferry.clusterStores" -}}
{{- if and .Values.processClusterStore (or .Values.scopedClusterStores (not (include "keyferry.scoped" .))) }}
{{- true }}
{{- end }}
{{- end }}

{{/* Named by the Role as well as by the flag. */}}
{{/*
Installations of different classes or scopes work side by side: with one Lease for both, the second would
stand by for ever. One that serves everything has ESO's name for it, so that it never works beside ESO.
*/}}
{{- define "keyferry.leaderElectionID" -}}
{{- $class := .Values.controllerClass | default "default" }}
{{- if .Values.leaderElectionID }}
{{- .Values.leaderElectionID }}
{{- else if or (ne $class "default") (include "keyferry.namespaces" .) }}
{{- include "keyferry.fullname" . | trunc 52 | trimSuffix "-" }}-controller
{{- else -}}
external-secrets-controller
{{- end }}
{{- end }}

{{- define "keyferry.livePort" -}}
{{- int .Values.livenessProbe.spec.httpGet.port | default 8082 }}
{{- end }}

{{/* ESO's levels above error (dpanic, panic, fatal) do not exist here; its values files still work. */}}
{{- define "keyferry.logLevel" -}}
{{- has .Values.log.level (list "dpanic" "panic" "fatal") | ternary "error" .Values.log.level }}
{{- end }}

{{/*
A securityContext from its values, without `enabled`. OpenShift assigns user and group by itself and
refuses pods that ask for others.
Arguments: context, values.
*/}}
{{- define "keyferry.securityContext" -}}
{{- $adapt := .context.Values.global.compatibility.openshift.adaptSecurityContext }}
{{- $openshift := .context.Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- $values := omit .values "enabled" }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") $openshift) }}
{{- $values = omit $values "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- with $values }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/*
A probe. Both are served on one port, so only its name is used here.
Arguments: a probe's values.
*/}}
{{- define "keyferry.probe" -}}
httpGet:
  path: {{ .spec.httpGet.path }}
  port: live
{{ toYaml (omit .spec "httpGet" "address") }}
{{- end }}

{{/*
The arguments of the operator, as a YAML list sorted by flag. extraArgs win over the chart's own, as a
flag must not be given twice.
*/}}
{{- define "keyferry.args" -}}
{{- $flags := dict
  "concurrent" (int .Values.concurrent)
  "deletion-brake" (.Values.deletionBrake | default "off")
  "enable-leader-election" .Values.leaderElect
  "live-addr" (printf "%s:%s" .Values.livenessProbe.spec.address (include "keyferry.livePort" .))
  "log-format" .Values.log.format
  "loglevel" (include "keyferry.logLevel" .)
  "metrics-addr" (printf ":%d" (int .Values.metrics.listen.port))
  "outage-grace" .Values.outageGrace
  "service-account-token-file" "/var/run/secrets/keyferry.dev/vault/token"
  "store-requeue-interval" .Values.storeRequeueInterval
  "vault-concurrency" (int .Values.vault.concurrency)
}}
{{- if .Values.leaderElect }}
{{- $_ := set $flags "leader-election-id" (include "keyferry.leaderElectionID" .) }}
{{- $_ := set $flags "leader-election-lease-duration" .Values.leaderElectionLeaseDuration }}
{{- $_ := set $flags "leader-election-renew-deadline" .Values.leaderElectionRenewDeadline }}
{{- $_ := set $flags "leader-election-retry-period" .Values.leaderElectionRetryPeriod }}
{{- end }}
{{- with .Values.controllerClass }}
{{- $_ := set $flags "controller-class" . }}
{{- end }}
{{- with include "keyferry.namespaces" . }}
{{- $_ := set $flags "namespace" . }}
{{- end }}
{{- if not (include "keyferry.clusterStores" .) }}
{{- $_ := set $flags "enable-cluster-store-reconciler" false }}
{{- end }}
{{- if not .Values.processSecretStore }}
{{- $_ := set $flags "enable-secret-store-reconciler" false }}
{{- end }}
{{- if .Values.genericTargets.enabled }}
{{- $_ := set $flags "unsafe-allow-generic-targets" true }}
{{- end }}
{{- if .Values.vault.requireTokenAudience }}
{{- $_ := set $flags "require-token-audience" true }}
{{- end }}
{{- /* A value emptied on purpose leaves the operator's own default. */}}
{{- range $flag, $value := $flags }}
{{- if has (toString $value) (list "" "0") }}
{{- $_ := unset $flags $flag }}
{{- end }}
{{- end }}
{{- range $flag, $value := .Values.extraArgs }}
{{- $_ := set $flags $flag $value }}
{{- end }}
{{- $args := list }}
{{- range $flag, $value := $flags }}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") }}
{{- $args = append $args (printf "--%s" $flag) }}
{{- else }}
{{- /* toJson: a large number from a values file would be printed as 1e+06. */}}
{{- $args = append $args (printf "--%s=%s" $flag (kindIs "float64" $value | ternary (toJson $value) (toString $value))) }}
{{- end }}
{{- end }}
{{- toYaml $args }}
{{- end }}
