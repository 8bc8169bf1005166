{{- define "twwatch.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "twwatch.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "twwatch.labels" -}}
{{ include "twwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "twwatch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "twwatch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "twwatch.priorityClass" -}}
{{- if .Values.priorityClass.create -}}
{{- default (include "twwatch.fullname" .) .Values.priorityClass.name -}}
{{- else -}}
{{- .Values.priorityClass.name -}}
{{- end -}}
{{- end -}}

{{/* Whether the pod gets the rights to see every network namespace. */}}
{{- define "twwatch.all" -}}
{{- if eq .Values.mode "all-namespaces" }}true{{ end -}}
{{- end -}}

{{/* Whether the pod puts the seccomp profile on the node. */}}
{{- define "twwatch.installs" -}}
{{- if and (include "twwatch.all" .) (eq .Values.seccomp.type "Localhost") .Values.seccomp.install }}true{{ end -}}
{{- end -}}
