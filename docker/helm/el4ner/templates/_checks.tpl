{{/* What no schema can say: values that do not go together. Each message says what to do. */}}
{{- define "el4ner.check" -}}
{{- include "el4ner.checkConfig" . -}}
{{- include "el4ner.checkMembers" . -}}
{{- include "el4ner.checkComponents" . -}}
{{- end -}}

{{- define "el4ner.checkConfig" -}}
{{- $config := .Values.config -}}
{{- $kafka := $config.kafka | default dict -}}
{{- $redis := $config.redis | default dict -}}
{{- $secrets := .Values.secrets -}}
{{- if not $kafka.bootstrap_servers -}}
{{- fail "config.kafka.bootstrap_servers: name your brokers, as HOST:PORT, several with commas" -}}
{{- end -}}
{{- range $address := splitList "," $kafka.bootstrap_servers -}}
{{- $port := regexFind ":[0-9]+$" (trim $address) | trimPrefix ":" | int -}}
{{- if or (not (regexMatch "^[^\\s@]+:[0-9]+$" (trim $address))) (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "config.kafka.bootstrap_servers: %q is not HOST:PORT, with a port from 1 to 65535" (trim $address)) -}}
{{- end -}}
{{- end -}}
{{- /* A ConfigMap is no place for secrets, nor is a release's history, which keeps all values. */ -}}
{{- range $path := list "kafka.sasl_password" "kafka.ssl_key_password" "kafka.registry.password" "kafka.registry.token" "kafka.registry.ssl_key_password" "redis.password" "redis.ssl_key_password" "serve.token" "ui.reader_token" "ui.teacher_token" "ui.serve_token" "redaction.keys" -}}
{{- $value := $config -}}
{{- range $key := splitList "." $path -}}
{{- $value = get ($value | default dict) $key -}}
{{- end -}}
{{- if $value -}}
{{- fail (printf "config.%s: values are kept in the clear; put it into a Secret, and name that in secrets.* (or in env, by valueFrom)" $path) -}}
{{- end -}}
{{- end -}}
{{- range $name, $model := $config.models -}}
{{- if dig "server" "api_key" "" ($model | default dict) -}}
{{- fail (printf "config.models.%s.server.api_key: values are kept in the clear; put it into a Secret, and name that in defaults.env: EL4NER_MODELS__%s__SERVER__API_KEY by valueFrom" $name (upper $name)) -}}
{{- end -}}
{{- end -}}
{{- range $path, $url := dict "redis.url" $redis.url "kafka.registry.url" (dig "registry" "url" "" $kafka) -}}
{{- if contains "@" ($url | default "") -}}
{{- fail (printf "config.%s: values are kept in the clear; leave user and password out, and name a Secret in secrets.%s" $path (ternary "redis" "registry" (hasPrefix "redis" $path))) -}}
{{- end -}}
{{- if $url -}}
{{- $port := include "el4ner.portOf" (dict "url" $url "default" "1") | int -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "config.%s: its port is none of 1 to 65535" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "el4ner.checkAddresses" (dict "path" "config" "value" $config) -}}
{{- range $section := list "serve" "ui" -}}
{{- if (get $config $section | default dict).host -}}
{{- fail (printf "config.%s.host: every pod reads the configuration, and only one has the token that this asks for; leave it out, the chart says it by --host" $section) -}}
{{- end -}}
{{- end -}}
{{- $protocol := $kafka.security_protocol | default "PLAINTEXT" -}}
{{- if and (hasPrefix "SASL" $protocol) (not $secrets.kafka.name) -}}
{{- fail (printf "config.kafka.security_protocol is %s: name the Secret with user and password in secrets.kafka.name" $protocol) -}}
{{- end -}}
{{- if and (hasPrefix "SASL" $protocol) (not $kafka.sasl_mechanism) -}}
{{- fail (printf "config.kafka.security_protocol is %s: set config.kafka.sasl_mechanism to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512" $protocol) -}}
{{- end -}}
{{- if and $secrets.kafka.name (not (hasPrefix "SASL" $protocol)) -}}
{{- fail (printf "secrets.kafka.name has no effect with config.kafka.security_protocol %s: set that to SASL_SSL or SASL_PLAINTEXT, or leave the Secret out" $protocol) -}}
{{- end -}}
{{- if and $secrets.kafkaTls.name (not (hasSuffix "SSL" $protocol)) -}}
{{- fail (printf "secrets.kafkaTls.name has no effect with config.kafka.security_protocol %s: set that to SSL or SASL_SSL, or leave the Secret out" $protocol) -}}
{{- end -}}
{{- if and $secrets.registry.name (not (dig "registry" "url" "" $kafka)) -}}
{{- fail "secrets.registry.name has no effect without config.kafka.registry.url: say where the registry is" -}}
{{- end -}}
{{- if and $secrets.redis.name (not $redis.url) -}}
{{- fail "secrets.redis.name has no effect without config.redis.url: say where Redis is" -}}
{{- end -}}
{{- if and $secrets.redisTls.name (not (hasPrefix "rediss://" ($redis.url | default ""))) -}}
{{- fail "secrets.redisTls.name has no effect without TLS: begin config.redis.url with rediss://" -}}
{{- end -}}
{{- if and .Values.serve.enabled (not $secrets.serve.name) -}}
{{- fail "serve.enabled: name the Secret with its token in secrets.serve.name" -}}
{{- end -}}
{{- $ui := $config.ui | default dict -}}
{{- if and .Values.ui.enabled (not $secrets.ui.name) (not $ui.proxy_user_header) -}}
{{- fail "ui.enabled: name the Secret with its tokens in secrets.ui.name, or the header of your proxy in config.ui.proxy_user_header" -}}
{{- end -}}
{{- if and .Values.ui.enabled $secrets.ui.name $ui.proxy_user_header -}}
{{- fail "secrets.ui.name and config.ui.proxy_user_header are both set: who asks is told by one of the two" -}}
{{- end -}}
{{- if and .Values.redact.enabled (not $secrets.redaction.name) (has (dig "action" "pseudonym" ($config.redaction | default dict)) (list "pseudonym" "surrogate")) -}}
{{- fail "redact.enabled: pseudonyms and surrogates take a key; name the Secret with it in secrets.redaction.name (el4ner redact keygen makes one), or set config.redaction.action to mask" -}}
{{- end -}}
{{- end -}}

{{/* What tells that an address has a user or a password in it, in front or in its query. */}}
{{- define "el4ner.credentialsInAddress" -}}
(?i)://\S*(@|[?&]\w*(password|token|secret|api_key)=)
{{- end -}}

{{/* No address anywhere in {path, value} has a user or a password. */}}
{{- define "el4ner.checkAddresses" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- range $key, $each := .value -}}
{{- include "el4ner.checkAddresses" (dict "path" (printf "%s.%s" $path $key) "value" $each) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $each := .value -}}
{{- include "el4ner.checkAddresses" (dict "path" $path "value" $each) -}}
{{- end -}}
{{- else if kindIs "string" .value -}}
{{- if regexMatch (include "el4ner.credentialsInAddress" .) .value -}}
{{- fail (printf "%s: values are kept in the clear; leave user, password and token out of the address, and put them into a Secret, named in secrets.* or in env by valueFrom (an @ that means nothing of this is %%40)" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "el4ner.checkMembers" -}}
{{- if .Values.members -}}
{{- if ne .Values.topology "stages" -}}
{{- fail "members: the ensemble's members can run apart where the stages do; set topology to stages" -}}
{{- end -}}
{{- $all := dig "ensemble" "members" list .Values.config -}}
{{- if not $all -}}
{{- fail "members: list the whole ensemble in config.ensemble.members too, also where it is a preset's" -}}
{{- end -}}
{{- $hosted := list -}}
{{- $roles := list -}}
{{- range $name, $entry := .Values.members -}}
{{- range $member := $entry.members -}}
{{- if not (has $member $all) -}}
{{- fail (printf "members.%s: the ensemble has no member %q; config.ensemble.members are %s" $name $member (join ", " $all)) -}}
{{- end -}}
{{- end -}}
{{- $hosted = concat $hosted $entry.members -}}
{{- $roles = concat $roles $entry.roles -}}
{{- end -}}
{{- range $member := $all -}}
{{- if not (has $member $hosted) -}}
{{- fail (printf "members: no process has the member %q, and every document would wait for it" $member) -}}
{{- end -}}
{{- end -}}
{{- range $role := list "extract" "classify" "validate" -}}
{{- if not (has $role $roles) -}}
{{- fail (printf "members: no process has the role %s" $role) -}}
{{- end -}}
{{- end -}}
{{- $method := .Values.config.method | default dict -}}
{{- $estimated := and (eq ($method.mode | default "scored") "scored") (eq ($method.weights | default "calibrated") "calibrated") -}}
{{- if and $estimated (ne .Values.cache.type "persistentVolumeClaim") -}}
{{- fail "members: combine reads the calibration from the cache; set cache.type to persistentVolumeClaim (and run el4ner calibrate once), or config.method.weights to even" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "el4ner.checkComponents" -}}
{{- $partitions := int (.Values.config.kafka.partitions | default 4) -}}
{{- range (include "el4ner.components" . | fromJson).components -}}
{{- $name := .name -}}
{{- range .spec.env -}}
{{- if hasKey . "value" -}}
{{- if regexMatch "(?i)(PASSWORD|TOKEN|SECRET|API_KEY|ACCESS_KEY|__KEYS|HEADERS)$" .name -}}
{{- fail (printf "env of %s: %s has its value in the clear; take it from a Secret by valueFrom" $name .name) -}}
{{- end -}}
{{- if regexMatch (include "el4ner.credentialsInAddress" .) .value -}}
{{- fail (printf "env of %s: %s has a user, a password or a token in an address, in the clear; take the variable from a Secret by valueFrom (an @ that means nothing of this is %%40)" $name .name) -}}
{{- end -}}
{{- /* el4ner reads variables as TOML: EL4NER_REDIS={password = "…"} sets a password. */ -}}
{{- if regexMatch "(?i)(password|token|secret|api_key|keys)[\"']?\\s*=\\s*[\"']" .value -}}
{{- fail (printf "env of %s: %s sets a secret in the clear; give that a variable of its own, from a Secret by valueFrom" $name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .kind "worker" -}}
{{- range $key, $count := dict "replicas" .spec.replicas "autoscaling.maxReplicas" (.spec.autoscaling.maxReplicas | default 1) -}}
{{- if gt (int $count) $partitions -}}
{{- fail (printf "%s of %s is %d, and topics have %d partitions: more would stand by. Where your topics have more, say so in config.kafka.partitions" $key $name (int $count) $partitions) -}}
{{- end -}}
{{- end -}}
{{- if .spec.autoscaling.enabled -}}
{{- $most := int (.spec.autoscaling.maxReplicas | default $partitions) -}}
{{- if gt (int .spec.autoscaling.minReplicas) $most -}}
{{- fail (printf "autoscaling.minReplicas of %s is %d, and there are never more than %d (autoscaling.maxReplicas, or without it config.kafka.partitions): set it lower" $name (int .spec.autoscaling.minReplicas) $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
