{{- define "portolan.name" -}}
{{ .Values.nameOverride | default "portolan" | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- /* The name of the release alone: most releases are called portolan. */}}
{{- define "portolan.fullname" -}}
{{- $name := .Release.Name }}
{{- if .Values.fullnameOverride }}{{ $name = .Values.fullnameOverride }}
{{- else if .Values.nameOverride }}{{ $name = printf "%s-%s" .Release.Name .Values.nameOverride }}{{ end }}
{{- $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- define "portolan.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "portolan.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}
{{- define "portolan.image" -}}
{{- with .Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}
{{- define "portolan.selector" -}}
app.kubernetes.io/name: {{ include "portolan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "portolan.labels" -}}
{{ include "portolan.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
