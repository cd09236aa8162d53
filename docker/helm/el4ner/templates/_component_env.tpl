{{/* Variables that only this kind of component has, {root, component}. */}}
{{- define "el4ner.componentEnv" -}}
{{- $spec := .component.spec -}}
{{- if eq .component.kind "worker" }}
- name: EL4NER_WORKER__WEB_HOST
  value: {{ .root.Values.listenAddress | quote }}
- name: EL4NER_WORKER__WEB_PORT
  value: {{ .component.port | int | quote }}
- name: EL4NER_WORKER__DATA_DIR
  value: /var/lib/el4ner/workers
{{- end }}
{{- if and .component.models (dig "requests" "cpu" "" $spec.resources) }}
# Otherwise torch has as many threads as the node has cores.
- name: OMP_NUM_THREADS
  valueFrom:
    resourceFieldRef:
      resource: requests.cpu
{{- end }}
{{- if eq .component.name "serve" }}
- name: EL4NER_SERVE__TOKEN_FILE
  value: /etc/el4ner/secrets/serve/token
{{- end }}
{{- if eq .component.name "ui" }}
{{- include "el4ner.uiEnv" .root }}
{{- end }}
{{- if and (eq .component.name "redact") .root.Values.secrets.redaction.name }}
- name: EL4NER_REDACTION__KEYS_FILE
  value: /etc/el4ner/secrets/redaction/keys
{{- end }}
{{- end -}}

{{/* What the page is told of its neighbours, and its tokens. */}}
{{- define "el4ner.uiEnv" -}}
{{- $fullname := include "el4ner.fullname" . -}}
{{- $secret := .Values.secrets.ui -}}
{{- if and $secret.name $secret.readerTokenKey }}
- name: EL4NER_UI__READER_TOKEN_FILE
  value: /etc/el4ner/secrets/ui/reader-token
{{- end }}
{{- if and $secret.name $secret.teacherTokenKey }}
- name: EL4NER_UI__TEACHER_TOKEN_FILE
  value: /etc/el4ner/secrets/ui/teacher-token
{{- end }}
{{- if .Values.serve.enabled }}
- name: EL4NER_UI__SERVE_URL
  value: http://{{ $fullname }}-serve:8088
- name: EL4NER_UI__SERVE_TOKEN_FILE
  value: /etc/el4ner/secrets/serve/token
{{- end }}
{{- with (include "el4ner.shownWorkers" . | fromJsonArray) }}
- name: EL4NER_UI__METRICS_URLS
  value: {{ include "el4ner.metricsUrls" (dict "fullname" $fullname "names" .) | quote }}
{{- end }}
{{- end -}}

{{/*
The workers whose health the page shows: those that are one pod. A Service in front of several answers for another one
each time, which would look like counters that jump.
*/}}
{{- define "el4ner.shownWorkers" -}}
{{- $names := list -}}
{{- range (include "el4ner.components" . | fromJson).components -}}
{{- if and (eq .kind "worker") (eq (int .spec.replicas) 1) (not .spec.autoscaling.enabled) -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end -}}

{{- define "el4ner.metricsUrls" -}}
{{- $urls := list -}}
{{- range .names -}}
{{- $urls = append $urls (printf "http://%s-%s:8080/metrics" $.fullname .) -}}
{{- end -}}
{{- $urls | toRawJson -}}
{{- end -}}
