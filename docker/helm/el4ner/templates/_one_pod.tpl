{{/* A pod that runs one command and ends, {root, parts, args}. It may come before the release's own service account. */}}
{{- define "el4ner.onePod" -}}
{{- $root := .root -}}
{{- $spec := dict "env" .root.Values.defaults.env "envFrom" .root.Values.defaults.envFrom -}}
restartPolicy: Never
serviceAccountName: {{ $root.Values.topics.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "el4ner.podSecurity" . | nindent 2 }}
containers:
  - name: {{ .parts.name }}
    image: {{ include "el4ner.image" (dict "root" $root "spec" $spec) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{- toYaml .args | nindent 6 }}
    env: {{- include "el4ner.lastOfEach" (concat (include "el4ner.env" .parts | fromYamlArray) $spec.env) | nindent 6 }}
    {{- with $spec.envFrom }}
    envFrom: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- include "el4ner.containerSecurity" . | nindent 6 }}
    resources: {{- toYaml $root.Values.topics.resources | nindent 6 }}
    volumeMounts: {{- include "el4ner.mounts" .parts | nindent 6 }}
      {{- with $root.Values.defaults.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes: {{- include "el4ner.volumes" .parts | nindent 2 }}
  {{- with $root.Values.defaults.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
