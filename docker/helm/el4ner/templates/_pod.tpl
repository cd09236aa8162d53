{{/* The image of a component, {root, spec}. */}}
{{- define "el4ner.image" -}}
{{- $image := deepCopy .root.Values.image -}}
{{- range $key, $value := .spec.image -}}{{- $_ := set $image $key $value -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository $image.tag -}}
{{- end -}}
{{- end -}}

{{- define "el4ner.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The user that the images have; its group owns the volumes. */}}
{{- define "el4ner.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
Everything of a pod but its containers and volumes, {root, spec}. Service links are off: for a Service called
el4ner-serve Kubernetes would set EL4NER_SERVE_PORT, which el4ner takes for a misspelt setting.
*/}}
{{- define "el4ner.podBasics" -}}
serviceAccountName: {{ include "el4ner.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "el4ner.podSecurity" . | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with get $.spec $key }}
{{ $key }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of variables with one name, the last one: the API server takes no list that has two. */}}
{{- define "el4ner.lastOfEach" -}}
{{- $names := list -}}
{{- $last := list -}}
{{- range reverse . -}}
{{- if not (has .name $names) -}}
{{- $names = append $names .name -}}
{{- $last = prepend $last . -}}
{{- end -}}
{{- end -}}
{{- toYaml $last -}}
{{- end -}}

{{/*
Which secrets a process takes, {root, kafka, redis}: those of what it connects to. And those of users that the
configuration names: every process reads all of it, and refuses a user without a password.
*/}}
{{- define "el4ner.secretsTaken" -}}
{{- $config := .root.Values.config -}}
{{- $user := hasPrefix "SASL" ($config.kafka.security_protocol | default "") -}}
{{- dict "kafka" (or .kafka $user) "redis" (or .redis (ne (dig "redis" "username" "" $config) "")) "registry" (ne .root.Values.secrets.registry.name "") | toJson -}}
{{- end -}}

{{/* Variables that say where a container's files are, and its secrets; {root, spec, kafka, redis, kafkaSecret}. */}}
{{- define "el4ner.env" -}}
{{- $secrets := .root.Values.secrets -}}
- name: EL4NER_CONFIG
  value: /etc/el4ner/el4ner.toml
{{- if .kafka }}
{{- if $secrets.kafka.name }}
- name: EL4NER_KAFKA__SASL_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ .kafkaSecret | default $secrets.kafka.name }}
      key: {{ $secrets.kafka.usernameKey }}
- name: EL4NER_KAFKA__SASL_PASSWORD_FILE
  value: /etc/el4ner/secrets/kafka/password
{{- end }}
{{- with $secrets.kafkaTls }}
{{- include "el4ner.tlsEnv" (dict "secret" . "section" "KAFKA" "folder" "kafka-tls") }}
{{- end }}
{{- end }}
{{- if .registry }}
- name: EL4NER_KAFKA__REGISTRY__{{ ternary "TOKEN" "PASSWORD" (ne $secrets.registry.tokenKey "") }}_FILE
  value: /etc/el4ner/secrets/registry/password
{{- end }}
{{- if .redis }}
{{- if $secrets.redis.name }}
- name: EL4NER_REDIS__PASSWORD_FILE
  value: /etc/el4ner/secrets/redis/password
{{- end }}
{{- with $secrets.redisTls }}
{{- include "el4ner.tlsEnv" (dict "secret" . "section" "REDIS" "folder" "redis-tls") }}
{{- end }}
{{- end }}
{{- range $name, $value := .env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "el4ner.tlsEnv" -}}
{{- if .secret.name }}
{{- range $variable, $key := dict "SSL_CAFILE" .secret.caKey "SSL_CERTFILE" .secret.certKey "SSL_KEYFILE" .secret.keyKey }}
{{- if $key }}
- name: EL4NER_{{ $.section }}__{{ $variable }}
  value: /etc/el4ner/secrets/{{ $.folder }}/{{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of every container; as el4ner.env, with cache. The root file system is read-only, and libraries want /tmp. */}}
{{- define "el4ner.mounts" -}}
{{- $secrets := .root.Values.secrets -}}
- name: config
  mountPath: /etc/el4ner/el4ner.toml
  subPath: el4ner.toml
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .cache }}
- name: cache
  mountPath: /var/lib/el4ner/cache
{{- end }}
{{- range $name := include "el4ner.secretVolumes" . | fromJsonArray }}
- name: secret-{{ $name }}
  mountPath: /etc/el4ner/secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Which secrets a container has as files, as a JSON array; as el4ner.env, with kind and name. */}}
{{- define "el4ner.secretVolumes" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $names := list -}}
{{- if and .kafka $secrets.kafka.name }}{{ $names = append $names "kafka" }}{{ end -}}
{{- if and .kafka $secrets.kafkaTls.name }}{{ $names = append $names "kafka-tls" }}{{ end -}}
{{- if .registry }}{{ $names = append $names "registry" }}{{ end -}}
{{- if and .redis $secrets.redis.name }}{{ $names = append $names "redis" }}{{ end -}}
{{- if and .redis $secrets.redisTls.name }}{{ $names = append $names "redis-tls" }}{{ end -}}
{{- if and (eq .name "serve") $secrets.serve.name }}{{ $names = append $names "serve" }}{{ end -}}
{{- if and (eq .name "ui") $secrets.ui.name }}{{ $names = append $names "ui" }}{{ end -}}
{{- if and (eq .name "ui") .root.Values.serve.enabled }}{{ $names = append $names "serve" }}{{ end -}}
{{- if and (eq .name "redact") $secrets.redaction.name }}{{ $names = append $names "redaction" }}{{ end -}}
{{- $names | toJson -}}
{{- end -}}

{{/* The volumes of these mounts. Secrets are for their owner and group: el4ner refuses keys that others may read. */}}
{{- define "el4ner.volumes" -}}
{{- $secrets := .root.Values.secrets -}}
- name: config
  configMap:
    name: {{ .configMap }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .root.Values.tmpSize }}
{{- if .cache }}
- name: cache
  {{- if eq .root.Values.cache.type "persistentVolumeClaim" }}
  persistentVolumeClaim:
    claimName: {{ include "el4ner.claim" .root }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .root.Values.cache.size }}
  {{- end }}
{{- end }}
{{- range $name := include "el4ner.secretVolumes" . | fromJsonArray }}
- name: secret-{{ $name }}
  secret:
    defaultMode: 0440
    {{- if eq $name "kafka" }}
    secretName: {{ $.kafkaSecret | default $secrets.kafka.name }}
    items: [{key: {{ $secrets.kafka.passwordKey }}, path: password}]
    {{- else if eq $name "kafka-tls" }}
    secretName: {{ $secrets.kafkaTls.name }}
    {{- else if eq $name "registry" }}
    secretName: {{ $secrets.registry.name }}
    items: [{key: {{ $secrets.registry.tokenKey | default $secrets.registry.passwordKey }}, path: password}]
    {{- else if eq $name "redis" }}
    secretName: {{ $secrets.redis.name }}
    items: [{key: {{ $secrets.redis.passwordKey }}, path: password}]
    {{- else if eq $name "redis-tls" }}
    secretName: {{ $secrets.redisTls.name }}
    {{- else if eq $name "serve" }}
    secretName: {{ $secrets.serve.name }}
    items: [{key: {{ $secrets.serve.tokenKey }}, path: token}]
    {{- else if eq $name "redaction" }}
    secretName: {{ $secrets.redaction.name }}
    items: [{key: {{ $secrets.redaction.keysKey }}, path: keys}]
    {{- else if eq $name "ui" }}
    secretName: {{ $secrets.ui.name }}
    items:
      {{- with $secrets.ui.readerTokenKey }}
      - {key: {{ . }}, path: reader-token}
      {{- end }}
      {{- with $secrets.ui.teacherTokenKey }}
      - {key: {{ . }}, path: teacher-token}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}
