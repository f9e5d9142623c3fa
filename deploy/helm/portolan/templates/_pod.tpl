{{- /*
A probe: the values of .probe, with .path as its handler unless they have one. With web.configSecret it
is a TCP connect, because HTTP probes cannot present a client certificate.
*/}}
{{- define "portolan.probe" -}}
{{- $probe := deepCopy .probe }}
{{- if not (or $probe.httpGet $probe.tcpSocket $probe.exec $probe.grpc) }}
{{- if not (include "portolan.hasPort" .root) }}
{{- $_ := set $probe "exec" (dict "command" (list "/portolan" "status")) }}
{{- else if .root.Values.web.configSecret }}
{{- $_ := set $probe "tcpSocket" (dict "port" "metrics") }}
{{- else }}
{{- $_ := set $probe "httpGet" (dict "path" .path "port" "metrics") }}
{{- end }}
{{- end }}
{{- toYaml $probe }}
{{- end }}
{{- define "portolan.securityContext" -}}
{{- $add := list "NET_ADMIN" "SYS_PTRACE" "DAC_READ_SEARCH" "SYS_ADMIN" }}
{{- if not .Values.oldRuntime }}{{ $add = concat (list "BPF" "PERFMON") $add }}{{ end }}
{{- $context := dict "privileged" false "runAsUser" 0 "runAsGroup" 0 "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true }}
{{- $_ := set $context "capabilities" (dict "drop" (list "ALL") "add" $add) }}
{{- $_ := set $context "seccompProfile" (dict "type" "Unconfined") }}
{{- toYaml (mergeOverwrite $context (deepCopy .Values.securityContext)) }}
{{- end }}
