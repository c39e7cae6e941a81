{{/* What the pods have in common. */}}

{{/* The part of a pod's spec that makes it satisfy the restricted standard. No pod talks to the API of Kubernetes. */}}
{{- define "sortinghat.restrictedPod" -}}
automountServiceAccountToken: false
# Variables of the cluster's services could be taken for settings.
enableServiceLinks: false
{{- if kindIs "bool" .Values.security.hostUsers }}
hostUsers: {{ .Values.security.hostUsers }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not (kindIs "invalid" .Values.security.runAsUser) }}
  runAsUser: {{ int64 .Values.security.runAsUser }}
  runAsGroup: {{ int64 .Values.security.runAsUser }}
  {{- end }}
  {{- if not (kindIs "invalid" .Values.security.fsGroup) }}
  fsGroup: {{ int64 .Values.security.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    {{- toYaml .Values.security.seccompProfile | nindent 4 }}
{{- end -}}

{{- define "sortinghat.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where pods run, and before which others. Takes root, values (of a component), kind (of its priority class) and labels (of its pods). */}}
{{- define "sortinghat.placement" -}}
{{- if .values.priorityClassName }}
priorityClassName: {{ .values.priorityClassName }}
{{- else if .root.Values.priorityClasses.create }}
priorityClassName: {{ include "sortinghat.fullname" .root }}-{{ .kind }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $spread := default dict .values.topologySpread }}
{{- if or $spread.zone $spread.node }}
topologySpreadConstraints:
  {{- range $rule, $key := dict "zone" "topology.kubernetes.io/zone" "node" "kubernetes.io/hostname" }}
  {{- with index $spread $rule }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: {{ . }}
    labelSelector:
      matchLabels:
        {{- $.labels | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Variables for the object store. Takes root and secretName. */}}
{{- define "sortinghat.objectsEnv" -}}
{{- $s3 := .root.Values.objects.s3 -}}
{{- with $s3.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with $s3.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- if $s3.allowHttp }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- if .secretName }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: {{ $s3.accessKeyIdKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: {{ $s3.secretAccessKeyKey }}}}
{{- end }}
{{- end -}}

{{- define "sortinghat.objectsUrl" -}}
{{ .Values.objects.url | default "file:///objects" }}
{{- end -}}

{{/* A value as TOML and JSON both write it. YAML's numbers arrive as floats, which would be printed as 1e+06. */}}
{{- define "sortinghat.toml" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}
