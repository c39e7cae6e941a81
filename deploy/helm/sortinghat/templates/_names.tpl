{{/* Names and labels. */}}

{{- define "sortinghat.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What all names begin with. There is room for the longest ending within the 63 characters of a name. */}}
{{- define "sortinghat.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "sortinghat.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sortinghat.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels by which everything of a release is selected. */}}
{{- define "sortinghat.selector" -}}
app.kubernetes.io/name: {{ include "sortinghat.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sortinghat.labels" -}}
{{ include "sortinghat.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sortinghat.coordinator" -}}
{{ include "sortinghat.fullname" . }}-coordinator
{{- end -}}

{{- define "sortinghat.valkey" -}}
{{ include "sortinghat.fullname" . }}-valkey
{{- end -}}

{{/* The name by which pods reach the coordinators. The certificate holds it. */}}
{{- define "sortinghat.host" -}}
{{ include "sortinghat.coordinator" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Where workers and the test find the coordinators. */}}
{{- define "sortinghat.url" -}}
{{- .Values.coordinator.url | default (include "sortinghat.serviceUrl" .) -}}
{{- end -}}

{{- define "sortinghat.serviceUrl" -}}
https://{{ include "sortinghat.host" . }}:{{ .Values.coordinator.service.port }}
{{- end -}}

{{- define "sortinghat.tlsSecret" -}}
{{ .Values.tls.secretName | default (printf "%s-tls" (include "sortinghat.coordinator" .)) }}
{{- end -}}

{{/* Takes root and image. */}}
{{- define "sortinghat.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (default .root.Chart.AppVersion .root.Values.image.tag) }}
{{- end -}}
{{- end -}}

{{/* Takes name (the one that is chosen) and account. */}}
{{- define "sortinghat.serviceAccount" -}}
{{- if .account.create -}}
{{ .account.name | default .name }}
{{- else -}}
{{ .account.name | default "default" }}
{{- end -}}
{{- end -}}
