{{- define "landseer.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select pods: (dict "root" $ "component" "triton") */}}
{{- define "landseer.selector" -}}
app.kubernetes.io/name: landseer
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "landseer.labels" -}}
{{ include "landseer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* What all pods share: (dict "root" $ "uid" 10001 "values" .Values.orchestrator) */}}
{{- define "landseer.pod" -}}
automountServiceAccountToken: false
# Otherwise Kubernetes sets environment variables named after our services.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .uid }}
  runAsGroup: {{ .uid }}
  fsGroup: {{ .uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "landseer.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "landseer.image" -}}
image: {{ printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{/* Triton and the relay before it, in a pod of their own or in an orchestrator's: (dict "root" $ "address" "0.0.0.0")
     The address is the relay's; Triton's gRPC is on the pod's loopback. */}}
{{- define "landseer.triton" -}}
- name: triton
  {{- include "landseer.image" (dict "root" .root "image" .root.Values.triton.image) | nindent 2 }}
  # HTTP is off. Over gRPC, models cannot be loaded or unloaded (mode `none`), and the other endpoints that change the
  # server or read its memory require a random key that is made at each start and never printed. `model-repository`
  # stays open, because the orchestrator reads the model versions there.
  command: [/bin/sh, -c]
  args:
    - >-
      exec tritonserver
      --model-repository=/models
      --model-control-mode=none
      --disable-auto-complete-config
      --allow-http=false
      --grpc-address=127.0.0.1
      --grpc-port=8003
      --metrics-address=0.0.0.0
      --metrics-port=8002
      --grpc-restricted-protocol=shared-memory,trace,logging:landseer-closed=`cat /proc/sys/kernel/random/uuid`
      --exit-timeout-secs=10
  securityContext:
    # The image's own user.
    runAsUser: 1000
    runAsGroup: 1000
    {{- include "landseer.container-security" . | nindent 4 }}
  ports:
    - {name: triton-metrics, containerPort: 8002}
  # Triton opens its ports only after every model is loaded.
  startupProbe:
    httpGet: {path: /metrics, port: triton-metrics}
    periodSeconds: 5
    failureThreshold: {{ div (add .root.Values.triton.startSeconds 4) 5 }}
  livenessProbe:
    httpGet: {path: /metrics, port: triton-metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    httpGet: {path: /metrics, port: triton-metrics}
    periodSeconds: 5
    timeoutSeconds: 2
    failureThreshold: 2
  {{- if ne .address "0.0.0.0" }}
  lifecycle:
    preStop:
      # The orchestrator beside it leaves the endpoints for 5 s and then has 10 s to finish its requests.
      exec: {command: [sleep, "16"]}
  {{- end }}
  resources: {{- toYaml .root.Values.triton.resources | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models, readOnly: true}
    - {name: triton-tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
# Orchestrators call it instead of Triton, which may crash when a call is cancelled (docs/triton.md).
- name: relay
  {{- include "landseer.image" (dict "root" .root "image" .root.Values.orchestrator.image) | nindent 2 }}
  command: [python, -m, landseer.ops.run.relay]
  args: ["--listen={{ .address }}:8001", "--triton=127.0.0.1:8003"]
  securityContext:
    # The user of the orchestrator's image.
    runAsUser: 10001
    runAsGroup: 10001
    {{- include "landseer.container-security" . | nindent 4 }}
  {{- $listens := list "python" "-c" "import socket; socket.create_connection(('127.0.0.1', 8001), 2)" }}
  {{- if eq .address "0.0.0.0" }}
  ports:
    - {name: grpc, containerPort: 8001}
  {{- end }}
  startupProbe:
    exec: {command: {{ toJson $listens }}}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 30
  livenessProbe:
    exec: {command: {{ toJson $listens }}}
    periodSeconds: 20
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    {{- if eq .address "0.0.0.0" }}
    # Triton's own answer.
    grpc: {port: 8001}
    {{- else }}
    exec: {command: {{ toJson $listens }}}
    {{- end }}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 2
  lifecycle:
    preStop:
      # It ends after Triton, whose inferences it would cut off; Triton has 10 s to finish them.
      exec: {command: [sleep, {{ if eq .address "0.0.0.0" }}"11"{{ else }}"27"{{ end }}]}
  resources: {{- toYaml .root.Values.triton.relay.resources | nindent 4 }}
{{- end }}

{{- define "landseer.triton-volumes" -}}
- name: models
  {{- if .Values.triton.models.volume }}
  {{- toYaml .Values.triton.models.volume | nindent 2 }}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ .Values.triton.models.claim }}, readOnly: true}
  {{- end }}
- name: triton-tmp
  emptyDir: {sizeLimit: 1Gi}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: 256Mi}
{{- end }}
