{{/* The coordinator's configuration file and its pod, which a Deployment and a StatefulSet share. */}}

{{- define "sortinghat.coordinatorLabels" -}}
{{ include "sortinghat.selector" . }}
app.kubernetes.io/component: coordinator
{{- end -}}

{{- define "sortinghat.storeUrl" -}}
{{- if eq .Values.store.type "embedded" -}}
embedded:/var/lib/sortinghat/queue.redb
{{- else -}}
{{ .Values.store.redis.url | default (printf "redis://%s:6379" (include "sortinghat.valkey" .)) }}
{{- end -}}
{{- end -}}

{{- define "sortinghat.configuration" -}}
listen = {{ printf "%s:7878" .Values.bindAddress | quote }}
metrics_listen = {{ printf "%s:%d" .Values.bindAddress (int .Values.metrics.port) | quote }}
data_dir = "/var/lib/sortinghat"
object_store = {{ include "sortinghat.objectsUrl" . | quote }}
tls_cert = "/etc/sortinghat/tls/tls.crt"
tls_key = "/etc/sortinghat/tls/tls.key"
credentials = {{ printf "/etc/sortinghat/credentials/%s" .Values.credentials.key | quote }}
{{- if .Values.tls.clientCaSecretName }}
client_ca = {{ printf "/etc/sortinghat/client-ca/%s" .Values.tls.clientCaKey | quote }}
{{- end }}
drain_delay = "{{ .Values.coordinator.drainDelaySeconds }}s"
drain_grace = "{{ .Values.coordinator.drainGraceSeconds }}s"
store = {{ include "sortinghat.storeUrl" . | quote }}
{{- if eq .Values.store.type "redis" }}
store_deployment = {{ .Values.store.redis.deployment | quote }}
{{- if .Values.store.redis.passwordSecretName }}
store_password_file = {{ printf "/etc/sortinghat/store/%s" .Values.store.redis.passwordKey | quote }}
{{- end }}
{{- if .Values.store.redis.allowDataLoss }}
allow_data_loss = true
{{- end }}
{{- end }}
{{- range $name, $value := .Values.coordinator.settings }}
{{ $name }} = {{ include "sortinghat.toml" $value }}
{{- end }}
{{- end -}}

{{- define "sortinghat.coordinatorPod" -}}
{{- $coordinator := .Values.coordinator -}}
metadata:
  labels:
    {{- include "sortinghat.coordinatorLabels" . | nindent 4 }}
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $coordinator.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "sortinghat.configuration" . | sha256sum }}
    {{- with $coordinator.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "sortinghat.restrictedPod" . | nindent 2 }}
  serviceAccountName: {{ include "sortinghat.serviceAccount" (dict "name" (include "sortinghat.coordinator" .) "account" $coordinator.serviceAccount) }}
  # The delay, the grace, and time to close the store.
  terminationGracePeriodSeconds: {{ add $coordinator.drainDelaySeconds $coordinator.drainGraceSeconds 20 }}
  {{- with include "sortinghat.placement" (dict "root" . "values" $coordinator "kind" "coordinator" "labels" (include "sortinghat.coordinatorLabels" .)) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: coordinator
      image: {{ include "sortinghat.image" (dict "root" . "image" $coordinator.image) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [--config, /etc/sortinghat/configuration/coordinator.toml]
      securityContext:
        {{- include "sortinghat.restrictedContainer" . | nindent 8 }}
      {{- $env := include "sortinghat.objectsEnv" (dict "root" . "secretName" .Values.objects.s3.secretName) }}
      {{- if or (trim $env) $coordinator.extraEnv }}
      env:
        {{- with trim $env }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $coordinator.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - {name: grpc, containerPort: 7878, protocol: TCP}
        - {name: metrics, containerPort: {{ .Values.metrics.port }}, protocol: TCP}
      # None of them looks at the store. A store that is down would else take every coordinator out of the Service, and restart them all.
      startupProbe:
        httpGet: {path: /startupz, port: metrics}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml $coordinator.resources | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /var/lib/sortinghat}
        - {name: configuration, mountPath: /etc/sortinghat/configuration, readOnly: true}
        - {name: tls, mountPath: /etc/sortinghat/tls, readOnly: true}
        - {name: credentials, mountPath: /etc/sortinghat/credentials, readOnly: true}
        {{- if .Values.tls.clientCaSecretName }}
        - {name: client-ca, mountPath: /etc/sortinghat/client-ca, readOnly: true}
        {{- end }}
        {{- if and (eq .Values.store.type "redis") .Values.store.redis.passwordSecretName }}
        - {name: store, mountPath: /etc/sortinghat/store, readOnly: true}
        {{- end }}
        {{- if .Values.objects.claimName }}
        - {name: objects, mountPath: /objects}
        {{- end }}
        {{- with $coordinator.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if eq .Values.store.type "redis" }}
    # Only a lock and an address. The queue is in Redis.
    - name: data
      emptyDir: {sizeLimit: 64Mi}
    {{- end }}
    - name: configuration
      configMap: {name: {{ include "sortinghat.coordinator" . }}}
    - name: tls
      secret:
        secretName: {{ include "sortinghat.tlsSecret" . }}
        defaultMode: 0440
        items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
    - name: credentials
      secret:
        secretName: {{ .Values.credentials.secretName }}
        defaultMode: 0440
        items: [{key: {{ .Values.credentials.key }}, path: {{ .Values.credentials.key }}}]
    {{- with .Values.tls.clientCaSecretName }}
    - name: client-ca
      secret:
        secretName: {{ . }}
        items: [{key: {{ $.Values.tls.clientCaKey }}, path: {{ $.Values.tls.clientCaKey }}}]
    {{- end }}
    {{- if and (eq .Values.store.type "redis") .Values.store.redis.passwordSecretName }}
    - name: store
      secret:
        secretName: {{ .Values.store.redis.passwordSecretName }}
        defaultMode: 0440
        items: [{key: {{ .Values.store.redis.passwordKey }}, path: {{ .Values.store.redis.passwordKey }}}]
    {{- end }}
    {{- with .Values.objects.claimName }}
    - name: objects
      persistentVolumeClaim: {claimName: {{ . }}}
    {{- end }}
    {{- with $coordinator.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
