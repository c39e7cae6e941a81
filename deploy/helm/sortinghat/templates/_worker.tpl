{{/* Classes of workers. */}}

{{/* The values of a class as YAML: the defaults, and over them what the class says. Takes root and class. */}}
{{- define "sortinghat.class" -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.workerDefaults) (deepCopy (default dict (index .root.Values.workers .class)))) -}}
{{- end -}}

{{/* Takes root and class. */}}
{{- define "sortinghat.workerLabels" -}}
{{ include "sortinghat.selector" .root }}
app.kubernetes.io/component: worker
sortinghat/class: {{ .class }}
{{- end -}}

{{/* GiB of a worker's volume: its cache, the temporary files of each slot, and some room. */}}
{{- define "sortinghat.volumeGiB" -}}
{{ add (int .cacheGiB) (mul (int .slots) (int .scratchGiB)) 2 }}
{{- end -}}

{{/* Takes root, class and worker (the values of the class). */}}
{{- define "sortinghat.workerEnv" -}}
- {name: SORTINGHAT_COORDINATOR, value: {{ include "sortinghat.url" .root | quote }}}
{{- if .worker.certificateSecretName }}
- {name: SORTINGHAT_CLIENT_CERT, value: /etc/sortinghat/certificate/tls.crt}
- {name: SORTINGHAT_CLIENT_KEY, value: /etc/sortinghat/certificate/tls.key}
{{- else }}
- {name: SORTINGHAT_TOKEN_FILE, value: {{ printf "/etc/sortinghat/token/%s" .worker.tokenKey | quote }}}
{{- end }}
{{- if .root.Values.tls.caKey }}
- {name: SORTINGHAT_CA_FILE, value: {{ printf "/etc/sortinghat/ca/%s" .root.Values.tls.caKey | quote }}}
{{- end }}
- {name: SORTINGHAT_OBJECT_STORE, value: {{ include "sortinghat.objectsUrl" .root | quote }}}
- {name: SORTINGHAT_WORKER_METRICS_LISTEN, value: {{ printf "%s:%d" .root.Values.bindAddress (int .root.Values.metrics.port) | quote }}}
- {name: SORTINGHAT_SLOTS, value: {{ .worker.slots | quote }}}
{{- with .worker.labels }}
{{- $labels := list }}
{{- range $name, $value := . }}{{ $labels = append $labels (printf "%s=%s" $name $value) }}{{ end }}
- {name: SORTINGHAT_LABELS, value: {{ join "," $labels | quote }}}
{{- end }}
- {name: SORTINGHAT_DEVICE, value: {{ .worker.device | quote }}}
- {name: SORTINGHAT_CACHE_BYTES, value: {{ printf "%dGiB" (int .worker.cacheGiB) | quote }}}
- {name: SORTINGHAT_SCRATCH_BYTES, value: {{ printf "%dGiB" (int .worker.scratchGiB) | quote }}}
{{- range $name, $value := .worker.settings }}
- {name: SORTINGHAT_{{ upper $name }}, value: {{ include "sortinghat.toml" $value | trimAll "\"" | quote }}}
{{- end }}
{{- with trim (include "sortinghat.objectsEnv" (dict "root" .root "secretName" (.worker.s3SecretName | default .root.Values.objects.s3.secretName))) }}
{{ . }}
{{- end }}
{{- with .worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The resources of a class, with its GPU. */}}
{{- define "sortinghat.workerResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpu.resource -}}
{{- $limits := default dict $resources.limits -}}
{{- $_ := set $limits .gpu.resource (int .gpu.count) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}

{{/* Takes root, class, name and worker. */}}
{{- define "sortinghat.workerPod" -}}
{{- $root := .root -}}
{{- $worker := .worker -}}
metadata:
  labels:
    {{- include "sortinghat.workerLabels" . | nindent 4 }}
    {{- with $root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $worker.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $worker.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "sortinghat.restrictedPod" $root | nindent 2 }}
  serviceAccountName: {{ include "sortinghat.serviceAccount" (dict "name" .name "account" $worker.serviceAccount) }}
  terminationGracePeriodSeconds: {{ $worker.terminationGracePeriodSeconds }}
  {{- with $worker.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with include "sortinghat.placement" (dict "root" $root "values" $worker "kind" "worker" "labels" (include "sortinghat.workerLabels" .)) | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "sortinghat.image" (dict "root" $root "image" $worker.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [run]
      securityContext:
        {{- include "sortinghat.restrictedContainer" . | nindent 8 }}
      env:
        {{- include "sortinghat.workerEnv" . | nindent 8 }}
      ports:
        - {name: metrics, containerPort: {{ $root.Values.metrics.port }}, protocol: TCP}
      # A worker has started once its first executor is ready, which takes a while on a GPU. Its executors are watched by itself.
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
        {{- include "sortinghat.workerResources" $worker | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /var/lib/sortinghat}
        {{- if $worker.certificateSecretName }}
        - {name: certificate, mountPath: /etc/sortinghat/certificate, readOnly: true}
        {{- else }}
        - {name: token, mountPath: /etc/sortinghat/token, readOnly: true}
        {{- end }}
        {{- if $root.Values.tls.caKey }}
        - {name: ca, mountPath: /etc/sortinghat/ca, readOnly: true}
        {{- end }}
        {{- if $root.Values.objects.claimName }}
        - {name: objects, mountPath: /objects}
        {{- end }}
        {{- with $worker.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: data
      {{- if $worker.volume.storageClassName }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ $worker.volume.storageClassName }}
            resources: {requests: {storage: {{ include "sortinghat.volumeGiB" $worker }}Gi}}
      {{- else }}
      emptyDir: {sizeLimit: {{ include "sortinghat.volumeGiB" $worker }}Gi}
      {{- end }}
    {{- if $worker.certificateSecretName }}
    - name: certificate
      secret:
        secretName: {{ $worker.certificateSecretName }}
        defaultMode: 0440
        items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
    {{- else }}
    - name: token
      secret:
        secretName: {{ $worker.tokenSecretName }}
        defaultMode: 0440
        items: [{key: {{ $worker.tokenKey }}, path: {{ $worker.tokenKey }}}]
    {{- end }}
    {{- with $root.Values.tls.caKey }}
    # The authorities only, and not the coordinator's key.
    - name: ca
      secret:
        secretName: {{ include "sortinghat.tlsSecret" $root }}
        items: [{key: {{ . }}, path: {{ . }}}]
    {{- end }}
    {{- with $root.Values.objects.claimName }}
    - name: objects
      persistentVolumeClaim: {claimName: {{ . }}}
    {{- end }}
    {{- with $worker.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
