{{/* The ports behind these addresses, HOST:PORT with commas between them, as a JSON array of numbers. */}}
{{- define "el4ner.ports" -}}
{{- $ports := list -}}
{{- range $address := splitList "," . -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim $address) | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* The port of an address, {url, default}; a path or a query may follow it. */}}
{{- define "el4ner.portOf" -}}
{{- $host := index (regexSplit "[/?#]" (regexReplaceAll "^[a-z]+://" .url "") -1) 0 -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default .default -}}
{{- end -}}

{{- define "el4ner.dnsEgress" -}}
- to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{/* A client asks a bootstrap server, and then the brokers by the addresses that they give: ports may be others. */}}
{{- define "el4ner.kafkaEgress" -}}
{{- $ports := .Values.networkPolicy.kafka.ports | default (include "el4ner.ports" .Values.config.kafka.bootstrap_servers | fromJsonArray) -}}
- ports:
    {{- range $ports }}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- with .Values.networkPolicy.kafka.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "el4ner.redisEgress" -}}
- ports:
    - {protocol: TCP, port: {{ include "el4ner.portOf" (dict "url" .Values.config.redis.url "default" "6379") | int }}}
  {{- with .Values.networkPolicy.redis.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The schema registry, at its own port or that of its scheme. */}}
{{- define "el4ner.registryEgress" -}}
{{- $url := .Values.config.kafka.registry.url -}}
{{- $default := ternary "443" "80" (hasPrefix "https" $url) -}}
- ports:
    - {protocol: TCP, port: {{ include "el4ner.portOf" (dict "url" $url "default" $default) | int }}}
  {{- with .Values.networkPolicy.registry.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The pods of some components, {root, names}. */}}
{{- define "el4ner.podsOf" -}}
matchLabels: {{- include "el4ner.selector" .root | nindent 2 }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: {{ .names | toJson }}}
{{- end -}}

{{/* Who may connect, {peers, port}. An empty list of peers would be everybody: without peers there is no rule. */}}
{{- define "el4ner.ingressRule" -}}
{{- if .peers -}}
- from: {{- toYaml .peers | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- else -}}
[]
{{- end -}}
{{- end -}}
