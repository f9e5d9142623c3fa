{{- /* "unix" opens no port: no probe, scrape or test can use it. */}}
{{- define "portolan.hasPort" -}}
{{- if ne .Values.web.address "unix" }}true{{ end }}
{{- end }}
{{- define "portolan.listenAddress" -}}
{{- $address := .Values.web.address }}
{{- if and (contains ":" $address) (not (hasPrefix "[" $address)) }}{{ $address = printf "[%s]" $address }}{{ end }}
{{- ternary (printf "%s:%v" $address .Values.web.port) $address (eq (include "portolan.hasPort" .) "true") }}
{{- end }}
{{- define "portolan.config" -}}
{{- $file := dict "web" (dict "listen_address" (include "portolan.listenAddress" .)) "log" (dict "format" "json") -}}
{{- if .Values.pin }}{{ $_ := set $file "pin" true }}{{ end -}}
{{- if .Values.criSocketDirectory }}{{ $_ := set $file "names" (dict "cri" (list (printf "%s/containerd.sock" .Values.criSocketDirectory) (printf "%s/crio.sock" .Values.criSocketDirectory))) }}{{ end -}}
{{- if .Values.web.configSecret }}{{ $_ := set $file.web "config_file" "/etc/portolan/web/web.yml" }}{{ end -}}
{{- with .Values.otlp.endpoint }}{{ $_ := set $file "otlp" (dict "endpoint" .) }}{{ end -}}
{{- toYaml (mergeOverwrite $file (deepCopy .Values.config)) -}}
{{- end }}
