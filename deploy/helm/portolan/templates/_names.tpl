{{- define "portolan.selector" -}}
app.kubernetes.io/name: portolan
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "portolan.labels" -}}
{{ include "portolan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
{{- end }}
{{- define "portolan.config" -}}
{{- $file := dict "web" (dict "listen_address" (printf "%s:%v" .Values.web.address .Values.web.port)) "log" (dict "format" "json") -}}
{{- if .Values.pin }}{{ $_ := set $file "pin" true }}{{ end -}}
{{- if .Values.criSocketDirectory }}{{ $_ := set $file "names" (dict "cri" (list (printf "%s/containerd.sock" .Values.criSocketDirectory) (printf "%s/crio.sock" .Values.criSocketDirectory))) }}{{ end -}}
{{- if .Values.web.configSecret }}{{ $_ := set $file.web "config_file" "/etc/portolan/web/web.yml" }}{{ end -}}
{{- toYaml (mergeOverwrite $file .Values.config) -}}
{{- end }}
