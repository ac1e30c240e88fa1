{{- define "rampart.env" -}}
- name: RAMPART_CONFIG
  value: /etc/rampart/rampart.toml
- name: TMPDIR
  value: /tmp
{{- if .Values.adminToken.existingSecret }}
- name: RAMPART_ADMIN_TOKEN_FILE
  value: /secrets/admin/{{ .Values.adminToken.tokenKey }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* name → name of the Secret; each is mounted as /secrets/<name>. */}}
{{- define "rampart.secrets" -}}
{{- $secrets := deepCopy .Values.secrets }}
{{- with .Values.database.existingSecret }}{{ $_ := set $secrets "database" . }}{{ end }}
{{- with .Values.peers.existingSecret }}{{ $_ := set $secrets "peers" . }}{{ end }}
{{- with .Values.adminToken.existingSecret }}{{ $_ := set $secrets "admin" . }}{{ end }}
{{- toYaml $secrets }}
{{- end }}

{{- define "rampart.mounts" -}}
- name: data
  mountPath: /var/lib/rampart
- name: temporary
  mountPath: /tmp
- name: settings
  mountPath: /etc/rampart
  readOnly: true
{{- if include "rampart.manifests" . }}
- name: manifests
  mountPath: /manifests
  readOnly: true
{{- end }}
{{- range $name, $_ := include "rampart.secrets" . | fromYaml }}
- name: secret-{{ $name }}
  mountPath: /secrets/{{ $name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rampart.volumes" -}}
- name: temporary
  emptyDir: {}
- name: settings
  configMap:
    name: {{ include "rampart.fullname" . }}
{{- with include "rampart.manifests" . }}
- name: manifests
  configMap:
    name: {{ . }}
{{- end }}
{{- range $name, $secret := include "rampart.secrets" . | fromYaml }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rampart.spread" -}}
{{- $ours := dict "labelSelector" (dict "matchLabels" (include "rampart.selector" . | fromYaml)) }}
{{- $constraints := .Values.topologySpreadConstraints }}
{{- if not $constraints }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway") }}
{{- end }}
{{- end }}
{{- range $constraints }}
{{- list (mergeOverwrite (deepCopy $ours) .) | toYaml | nindent 0 }}
{{- end }}
{{- end }}
