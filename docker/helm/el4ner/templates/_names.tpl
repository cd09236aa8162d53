{{/* The release's own name, short enough for what is put behind it. */}}
{{- define "el4ner.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects every pod of the release. It never changes: a Deployment's selector cannot. */}}
{{- define "el4ner.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "el4ner.labels" -}}
{{ include "el4ner.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "el4ner.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "el4ner.fullname" .) -}}
{{- end -}}

{{- define "el4ner.claim" -}}
{{- .Values.cache.existingClaim | default (printf "%s-cache" (include "el4ner.fullname" .)) -}}
{{- end -}}
