{{/*
What runs: {"components": [...]} as JSON, each with
  name, kind    worker, serve or ui; its Deployment is FULLNAME-NAME
  args          of the command el4ner
  spec          .Values.defaults, and what the component says itself
  reads         [{topic, group}]: what a worker's lag is of
  models        whether it loads models, and so has the cache, prepared; cache: whether it has it at all
  kafka, redis  whether it connects to them
  env           variables of its own, by name
*/}}
{{- define "el4ner.components" -}}
{{- include "el4ner.checkConfig" . -}}
{{- $root := . -}}
{{- $components := list -}}
{{- $worker := dict "kind" "worker" "port" 8080 "ready" "/readyz" "kafka" true -}}
{{- $with := dict "models" true "cache" true "redis" true -}}
{{- $without := dict "models" false "cache" false "redis" false -}}
{{- if eq .Values.topology "pipeline" -}}
{{- $components = append $components (merge (dict "name" "pipeline" "roles" (list "pipeline") "own" .Values.workers.pipeline) $worker $with) -}}
{{- else -}}
{{- if .Values.members -}}
{{- range $name, $own := .Values.members -}}
{{- $env := dict "EL4NER_WORKER__MEMBERS" ($own.members | toRawJson) -}}
{{- $components = append $components (merge (dict "name" (printf "members-%s" $name) "roles" $own.roles "members" $own.members "own" (omit $own "members" "roles") "env" $env) $worker $with) -}}
{{- end -}}
{{- $components = append $components (merge (dict "name" "combine" "roles" (list "combine") "own" .Values.workers.combine "cache" true) $worker $without) -}}
{{- else -}}
{{- range $name := list "extract" "classify" "validate" -}}
{{- $components = append $components (merge (dict "name" $name "roles" (list $name) "own" (get $root.Values.workers $name)) $worker $with) -}}
{{- end -}}
{{- end -}}
{{- $components = append $components (merge (dict "name" "aggregate" "roles" (list "aggregate") "own" .Values.workers.aggregate) $worker $without) -}}
{{- end -}}
{{- if .Values.redact.enabled -}}
{{- $components = append $components (merge (dict "name" "redact" "roles" (list "redact") "own" (omit .Values.redact "enabled")) $worker $without) -}}
{{- end -}}
{{- if .Values.entities.enabled -}}
{{- /* One process has the book of entities: more would stand by, whatever the lag. */ -}}
{{- $own := set (omit .Values.entities "enabled") "autoscaling" (dict "enabled" false) -}}
{{- $components = append $components (merge (dict "name" "entities" "roles" (list "entities") "own" $own) $worker $without) -}}
{{- end -}}
{{- if .Values.serve.enabled -}}
{{- $args := list "serve" "--host" .Values.listenAddress "--port" "8088" -}}
{{- $kafka := dig "serve" "follow_examples" false .Values.config -}}
{{- $components = append $components (merge (dict "name" "serve" "kind" "serve" "args" $args "port" 8088 "ready" "/readyz" "kafka" $kafka "own" (omit .Values.serve "enabled" "ingress" "ingressFrom")) $with) -}}
{{- end -}}
{{- if .Values.ui.enabled -}}
{{- $args := list "ui" "--host" .Values.listenAddress "--port" "8090" -}}
{{- $components = append $components (merge (dict "name" "ui" "kind" "ui" "args" $args "port" 8090 "ready" "/livez" "kafka" true "own" (omit .Values.ui "enabled" "ingress" "ingressFrom")) $without) -}}
{{- end -}}
{{- $whole := list -}}
{{- range $component := $components -}}
{{- $spec := include "el4ner.spec" (dict "defaults" $root.Values.defaults "own" ($component.own | default dict)) | fromJson -}}
{{- $_ := set $component "spec" $spec -}}
{{- $_ := unset $component "own" -}}
{{- if eq $component.kind "worker" -}}
{{- $_ := set $component "args" (concat (list "worker") $component.roles) -}}
{{- $reads := include "el4ner.reads" (dict "root" $root "component" $component) | fromJson -}}
{{- $_ := set $component "reads" $reads.reads -}}
{{- end -}}
{{- $whole = append $whole $component -}}
{{- end -}}
{{- dict "components" $whole | toJson -}}
{{- end -}}

{{/*
A component's settings: its own in the place of the defaults. Of autoscaling, gpu and image each key by itself; lists
that things are added to (env, envFrom, volumes, mounts) come behind the defaults'. Not mergeOverwrite, which keeps a default
where the component says false or 0.
*/}}
{{- define "el4ner.spec" -}}
{{- $spec := deepCopy .defaults -}}
{{- range $key, $value := .own -}}
{{- if has $key (list "autoscaling" "gpu" "image") -}}
{{- $part := deepCopy (get $spec $key | default dict) -}}
{{- range $name, $each := $value -}}{{- $_ := set $part $name $each -}}{{- end -}}
{{- $_ := set $spec $key $part -}}
{{- else if has $key (list "env" "envFrom" "extraVolumes" "extraVolumeMounts") -}}
{{- $_ := set $spec $key (concat (get $spec $key | default list) ($value | default list)) -}}
{{- else -}}
{{- $_ := set $spec $key $value -}}
{{- end -}}
{{- end -}}
{{- $spec | toJson -}}
{{- end -}}

{{/* {"reads": [{topic, group}]}: names as workers/topics.py and workers/ensemble/members.py make them. */}}
{{- define "el4ner.reads" -}}
{{- $root := .root -}}
{{- $topics := dict "pipeline" (list "documents") "extract" (list "documents") "classify" (list "span-candidates") "validate" (list "typed-entities") "combine" (list "member-answers") "aggregate" (list "span-candidates" "typed-entities" "validation-verdicts") "redact" (list "tagged-documents") "entities" (list "tagged-documents" "entity-occurrences" "entity-decisions") -}}
{{- $all := dig "ensemble" "members" list $root.Values.config -}}
{{- $hosted := .component.members | default list -}}
{{- $some := false -}}
{{- if $hosted -}}
{{- range $member := $all -}}{{- if not (has $member $hosted) -}}{{- $some = true -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $method := $root.Values.config.method | default dict -}}
{{- $listed := or (eq ($method.mode | default "scored") "paper") (has "models" ($method.proposals | default list)) -}}
{{- $reads := list -}}
{{- range $role := .component.roles -}}
{{- /* One hop goes on where the stages apart have stopped. */ -}}
{{- $group := ternary "extract" $role (eq $role "pipeline") -}}
{{- if and $some (or (eq $role "classify") (and (eq $role "extract") $listed)) -}}
{{- $group = printf "%s-%s" $role (sortAlpha $hosted | join "+") -}}
{{- end -}}
{{- range $topic := get $topics $role -}}
{{- $reads = append $reads (dict "topic" (include "el4ner.topic" (dict "root" $root "name" $topic)) "group" (printf "%sel4ner-%s" ($root.Values.config.kafka.topic_prefix | default "") $group)) -}}
{{- end -}}
{{- end -}}
{{- dict "reads" $reads | toJson -}}
{{- end -}}

{{/* What must end before a pod is killed: el4ner's watchdog ends a process 10 s after worker.shutdown_seconds. */}}
{{- define "el4ner.grace" -}}
{{- add (ceil (dig "worker" "shutdown_seconds" 30 .Values.config)) 15 -}}
{{- end -}}
