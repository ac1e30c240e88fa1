{{/* What a schema cannot say, or says so that nobody understands it. Each message names the value and the way out. */}}
{{- define "rampart.checks" -}}
{{- include "rampart.checkDatabase" . }}
{{- include "rampart.checkSecrets" . }}
{{- include "rampart.checkRest" . }}
{{- end }}

{{- define "rampart.checkDatabase" -}}
{{- $database := .Values.database }}
{{- if and (not $database.embedded) (not $database.existingSecret) }}
{{- fail "\n\ndatabase.existingSecret is empty: name the Secret that holds the address of your PostgreSQL,\n  kubectl create secret generic rampart-database --from-literal=url='postgresql://…'\n  --set database.existingSecret=rampart-database\nor, for a trial with everything in one pod, --set database.embedded=true" }}
{{- end }}
{{- if and $database.embedded $database.existingSecret }}
{{- fail "\n\ndatabase.embedded and database.existingSecret contradict each other: which database is it?" }}
{{- end }}
{{- if and $database.listenUrlKey (not $database.pooled) }}
{{- fail "\n\ndatabase.listenUrlKey is the way around a pooler: set database.pooled, too, or leave it out" }}
{{- end }}
{{- if and .Values.migrations.existingSecret (ne .Values.migrations.mode "hook") }}
{{- fail "\n\nmigrations.existingSecret is for the job, and there is none: set migrations.mode=hook" }}
{{- end }}
{{- end }}

{{- define "rampart.checkSecrets" -}}
{{- range $name := list "database" "peers" "admin" }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "\n\nsecrets.%s: this name is taken by the chart; choose another" $name) }}
{{- end }}
{{- end }}
{{- range $line := splitList "\n" (toToml .Values.settings) }}
{{- range $path := mustRegexFindAll "\"/secrets/[^\"]*\"" $line -1 }}
{{- $name := index (splitList "/" (trimAll "\"" $path)) 2 }}
{{- if not (hasKey $.Values.secrets $name) }}
{{- fail (printf "\n\nsettings: %s\nnothing is mounted there: name the Secret as secrets.%s" (trim $line) $name) }}
{{- end }}
{{- end }}
{{- if regexMatch "://[^/@\"\\s]*:[^/@\"\\s]+@" $line }}
{{- fail (printf "\n\nsettings: %s\nan address with a password would stand in a ConfigMap for everybody to read: mount a Secret (secrets) and name its file" (first (splitList "=" (trim $line)) | trim)) }}
{{- end }}
{{- end }}
{{- range $name, $source := .Values.settings.sources }}
{{- range $part := list "headers" "params" }}
{{- range $key, $_ := (get $source $part | default dict) }}
{{- if regexMatch "(?i)authorization|cookie|token|secret|password|api[-_]?key|application[-_]?key" $key }}
{{- fail (printf "\n\nsettings.sources.%s.%s.%s would stand in a ConfigMap for everybody to read: mount a Secret (secrets) and name its file" $name $part $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if and (hasKey . "value") (regexMatch "(?i)(TOKEN|SECRET|PASSWORD|DATABASE__URL|LISTEN_URL)$" .name) }}
{{- fail (printf "\n\nextraEnv: %s is a secret: take it from a Secret by valueFrom.secretKeyRef" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rampart.checkRest" -}}
{{- if and .Values.manifests.files .Values.manifests.existingConfigMap }}
{{- fail "\n\nmanifests.files and manifests.existingConfigMap: give one of them" }}
{{- end }}
{{- range $name, $_ := .Values.manifests.files }}
{{- if not (regexMatch "^[-\\w]([-.\\w]*)\\.(rollout|policy|flag)\\.ya?ml$" $name) }}
{{- fail (printf "\n\nmanifests.files: %s would not be loaded: its name has to end in .rollout.yaml, .policy.yaml or .flag.yaml" $name) }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "\n\ningress.hosts is empty: under which name is Rampart reached?" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (eq (toString (dig "server" "allow_unauthenticated_metrics" true .Values.settings)) "false") (not .Values.serviceMonitor.tokenSecret) }}
{{- fail "\n\nserviceMonitor.tokenSecret is empty, and settings.server.allow_unauthenticated_metrics is false: Prometheus would be refused" }}
{{- end }}
{{- end }}
