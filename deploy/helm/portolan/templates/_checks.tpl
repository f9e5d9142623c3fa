{{- /*
Values that contradict each other. The schema rejects what is wrong by itself; it cannot compare two
values, nor say in a sentence what to do.
*/}}
{{- define "portolan.checks" -}}
{{- $web := .Values.config.web | default dict }}
{{- $otlp := .Values.config.otlp | default dict }}
{{- $names := .Values.config.names | default dict }}
{{- if hasKey $web "listen_address" }}
{{- fail "config.web.listen_address is not for the chart: ports, probes and scrape are made from web.address and web.port; set these two" }}
{{- end }}
{{- if hasKey $web "config_file" }}
{{- fail "config.web.config_file is not for the chart: put web.yml into a Secret and name it in web.configSecret" }}
{{- end }}
{{- if hasKey $otlp "headers" }}
{{- fail "config.otlp.headers would put a secret into a ConfigMap: put the headers into a Secret and name it in otlp.headersSecret" }}
{{- end }}
{{- if and .Values.otlp.endpoint (hasKey $otlp "endpoint") }}
{{- fail "otlp.endpoint and config.otlp.endpoint are the same setting: remove one" }}
{{- end }}
{{- if and .Values.otlp.headersSecret (not .Values.otlp.endpoint) (not (hasKey $otlp "endpoint")) }}
{{- fail "otlp.headersSecret has no effect without otlp.endpoint: set the collector's URL" }}
{{- end }}
{{- if and (hasKey .Values.config "pin") (ne (toString .Values.config.pin) (toString .Values.pin)) }}
{{- fail "config.pin contradicts pin, which also mounts the node's bpffs: set pin only" }}
{{- end }}
{{- if and .Values.criSocketDirectory (hasKey $names "cri") }}
{{- fail "criSocketDirectory and config.names.cri are the same setting: remove one" }}
{{- end }}
{{- if not (include "portolan.hasPort" .) }}
{{- range $value, $on := dict "web.configSecret" .Values.web.configSecret "podMonitor.enabled" .Values.podMonitor.enabled "serviceMonitor.enabled" .Values.serviceMonitor.enabled "networkPolicy.enabled" .Values.networkPolicy.enabled }}
{{- if $on }}
{{- fail (printf "web.address is unix, which opens no port, and %s is for a port: remove one of the two" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.web.configSecret }}
{{- if eq .Values.web.scheme "https" }}
{{- fail "web.scheme is https, but the endpoint has no TLS without web.configSecret: name the Secret with web.yml" }}
{{- end }}
{{- if .Values.web.basicAuth }}
{{- fail "web.basicAuth is set, but the endpoint asks for no password without web.configSecret: name the Secret with web.yml" }}
{{- end }}
{{- end }}
{{- if and .Values.web.tlsConfig (ne .Values.web.scheme "https") }}
{{- fail "web.tlsConfig has no effect while web.scheme is http: set it to https" }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor and serviceMonitor would each scrape every agent, and every series would be there twice: enable one" }}
{{- end }}
{{- if dig "rollingUpdate" "maxSurge" "" .Values.updateStrategy }}
{{- fail "updateStrategy.rollingUpdate.maxSurge would start a second agent on a node, whose port and lock the first one has: use maxUnavailable" }}
{{- end }}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" }}
{{- range $value, $labels := dict "commonLabels" $.Values.commonLabels "podLabels" $.Values.podLabels }}
{{- if hasKey $labels $label }}
{{- fail (printf "%s has %s, by which the DaemonSet finds its pods: use nameOverride or the name of the release" $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
