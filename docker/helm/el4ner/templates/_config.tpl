{{/*
el4ner.toml, of .Values.config. What TOML and JSON write alike (texts, numbers, true and false, lists of them) is written
as JSON, so that nothing depends on how a number came through YAML.
*/}}
{{- define "el4ner.toml" -}}
{{- include "el4ner.table" (dict "heading" "" "table" (include "el4ner.config" . | fromJson)) -}}
{{- end -}}

{{/* .Values.config, with what the chart knows better: as JSON. Helm renders files in its own order; each begins here. */}}
{{- define "el4ner.config" -}}
{{- include "el4ner.check" . -}}
{{- $config := deepCopy .Values.config -}}
{{- $redis := $config.redis | default dict -}}
{{- if not $redis.url -}}
{{- /* The default is an address of this machine: in a pod nobody is there. */ -}}
{{- $_ := set $config "redis" (merge (dict "enabled" false) $redis) -}}
{{- end -}}
{{- if and .Values.redact.enabled (not $config.redaction) -}}
{{- /* Its topics are made where the section says something. This is its default. */ -}}
{{- $_ := set $config "redaction" (dict "action" "pseudonym") -}}
{{- end -}}
{{- if .Values.entities.enabled -}}
{{- $_ := set $config "entities" (merge (dict "enabled" true) ($config.entities | default dict)) -}}
{{- end -}}
{{- $config | toJson -}}
{{- end -}}

{{- define "el4ner.table" -}}
{{- $heading := .heading -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "el4ner.key" $key }} = {{ $value | toRawJson }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if kindIs "map" $value }}
{{- $below := include "el4ner.key" $key }}
{{- if $heading }}{{ $below = printf "%s.%s" $heading $below }}{{ end }}

[{{ $below }}]
{{- include "el4ner.table" (dict "heading" $below "table" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "el4ner.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ . | toRawJson }}{{- end -}}
{{- end -}}

{{/* A topic's name on the broker, as workers/topics.py makes it. */}}
{{- define "el4ner.topic" -}}
{{- $kafka := .root.Values.config.kafka -}}
{{- if and (eq .name "documents") $kafka.documents_topic -}}
{{- $kafka.documents_topic -}}
{{- else -}}
{{- printf "%s%s" ($kafka.topic_prefix | default "") .name -}}
{{- end -}}
{{- end -}}
