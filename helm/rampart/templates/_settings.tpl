{{/* rampart.toml: what values.settings says, and what this chart decides itself. */}}
{{- define "rampart.settings" -}}
{{- $database := dict }}
{{- if not .Values.database.embedded }}
{{- $_ := set $database "url_file" (printf "/secrets/database/%s" .Values.database.urlKey) }}
{{- if .Values.database.pooled }}
{{- $_ := set $database "pooled" true }}
{{- end }}
{{- if .Values.database.listenUrlKey }}
{{- $_ := set $database "listen_url_file" (printf "/secrets/database/%s" .Values.database.listenUrlKey) }}
{{- end }}
{{- end }}
{{- $own := dict "data_dir" "/var/lib/rampart" "server" (dict "bind" "0.0.0.0:8400") "database" $database }}
{{- with include "rampart.publicUrl" . }}
{{- $_ := set $own.server "public_url" . }}
{{- end }}
{{- if include "rampart.manifests" . }}
{{- $_ := set $own.server "manifests" "/manifests" }}
{{- end }}
{{- if .Values.peers.existingSecret }}
{{- $dns := printf "%s-headless.%s.svc.%s:8400" (include "rampart.fullname" .) .Release.Namespace .Values.clusterDomain }}
{{- $_ := set $own "peers" (dict "dns" $dns "secret_file" (printf "/secrets/peers/%s" .Values.peers.secretKey)) }}
{{- end }}
{{- /* Helm takes every number for a float; TOML tells the two apart, and people do, too. */}}
{{- $toml := mustMergeOverwrite (deepCopy .Values.settings) $own | toToml }}
{{- mustRegexReplaceAll "(?m)^(\\s*[-\\w]+ = -?[0-9]+)\\.0$" (trim $toml) "${1}" }}
{{- end }}
