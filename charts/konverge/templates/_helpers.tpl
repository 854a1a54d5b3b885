{{/* The fleet's name; everything is named after it, as konverge/model/fleet.py does. */}}
{{- define "konverge.fleet" -}}
{{- $name := default .Release.Name .Values.fleet.name -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "fleet.name: %q has %d characters, 40 is the most: names of Services end after 63" $name (len $name)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "konverge.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* Labels of objects. Never used in selectors: they change with the chart's version. */}}
{{- define "konverge.labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
konverge.dev/fleet: {{ include "konverge.fleet" . }}
{{- end -}}

{{/* Selector labels: (dict "context" . "component" "gateway"). */}}
{{- define "konverge.selector" -}}
app.kubernetes.io/name: konverge-{{ .component }}
app.kubernetes.io/instance: {{ include "konverge.fleet" .context }}
{{- end -}}

{{/* Affinity: (dict "context" . "component" "gateway" "mode" "preferred"). */}}
{{- define "konverge.affinity" -}}
{{- if eq .mode "preferred" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "konverge.selector" . | nindent 14 }}
{{- else if eq .mode "required" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "konverge.selector" . | nindent 12 }}
{{- end }}
{{- end -}}

{{/* Where a pod runs: the workload's own part of the values. */}}
{{- define "konverge.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "konverge.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The pod and container settings that the "restricted" Pod Security Standard asks for. */}}
{{- define "konverge.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "konverge.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* The Prefect API that controller and worker use; empty where there is none. */}}
{{- define "konverge.prefectUrl" -}}
{{- if .Values.prefect.apiUrl -}}
{{ .Values.prefect.apiUrl }}
{{- else if .Values.prefect.server.enabled -}}
http://{{ include "konverge.fleet" . }}-prefect.{{ .Release.Namespace }}.svc:4200/api
{{- end -}}
{{- end -}}

{{/* Environment of every client of Prefect. */}}
{{- define "konverge.prefectClient" -}}
- name: PREFECT_HOME
  value: /tmp/prefect
- name: PREFECT_SERVER_ALLOW_EPHEMERAL_MODE
  value: "false"
- name: PREFECT_FLOWS_HEARTBEAT_FREQUENCY
  value: "30"
- name: DO_NOT_TRACK
  value: "1"
{{- with include "konverge.prefectUrl" . }}
- name: PREFECT_API_URL
  value: {{ . }}
{{- end }}
{{- /* Fleets may share a Prefect server: the deployments of each have a name of their own. */}}
- name: KONVERGE_DEPLOYMENT
  value: {{ .Release.Namespace }}-{{ include "konverge.fleet" . }}
{{- with .Values.prefect.authSecret }}
- name: PREFECT_API_AUTH_STRING
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: auth-string
{{- end }}
{{- end -}}

{{/* Which fleet this is, for every konverge command. */}}
{{- define "konverge.fleetEnvironment" -}}
- name: KONVERGE_FLEET
  value: {{ include "konverge.fleet" . }}
- name: KONVERGE_NAMESPACE
  value: {{ .Release.Namespace }}
{{- end -}}

{{- define "konverge.proxyService" -}}
{{- default (printf "%s-gateway-proxy" (include "konverge.fleet" .)) .Values.gateway.service.name -}}
{{- end -}}

{{/* The ProxyFleet object as the controller applies it. No pinnedRevision: `konverge rollback` sets it, and it stays. */}}
{{- define "konverge.fleetObject" -}}
apiVersion: konverge.dev/v1alpha1
kind: ProxyFleet
metadata:
  name: {{ include "konverge.fleet" . }}
  namespace: {{ .Release.Namespace }}
spec:
  ingressClass: {{ .Values.fleet.ingressClass }}
  features:
    {{- toYaml .Values.fleet.features | nindent 4 }}
  replicas: {{ .Values.gateway.replicas }}
  image: {{ .Values.gateway.image.repository }}:{{ .Values.gateway.image.tag }}
  routerFlavor: {{ .Values.gateway.routerFlavor }}
  mode: {{ .Values.fleet.mode }}
  database:
    {{- toYaml .Values.fleet.database | nindent 4 }}
  proxyService: {{ include "konverge.proxyService" . }}
  rollout:
    {{- toYaml .Values.fleet.rollout | nindent 4 }}
  identity:
    {{- toYaml .Values.fleet.identity | nindent 4 }}
  historyLimit: {{ .Values.fleet.historyLimit }}
  drift: {{ .Values.fleet.drift }}
  runner: {{ .Values.fleet.runner }}
  paused: {{ .Values.fleet.paused }}
{{- end -}}

{{/* The accounts that read sources and own the fleet's objects: the controller, and the worker that runs flows. */}}
{{- define "konverge.subjects" -}}
- kind: ServiceAccount
  name: {{ include "konverge.fleet" . }}-controller
  namespace: {{ .Release.Namespace }}
{{- if .Values.prefect.worker.enabled }}
- kind: ServiceAccount
  name: {{ include "konverge.fleet" . }}-worker
  namespace: {{ .Release.Namespace }}
{{- end }}
{{- end -}}

{{/* Key encryption keys of a sealed store, for whoever opens identities: volume and mount. */}}
{{- define "konverge.sealingVolume" -}}
{{- with .Values.sealingKeys.secret }}
- name: sealing-keys
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "konverge.sealingMount" -}}
{{- if .Values.sealingKeys.secret }}
- {name: sealing-keys, mountPath: /etc/konverge/keys, readOnly: true}
{{- end }}
{{- end -}}

{{/* The Secret with certificate and key of the webhook. */}}
{{- define "konverge.admissionSecret" -}}
{{- if eq .Values.admission.certificate.source "secret" -}}
{{ required "admission.certificate.source secret needs admission.certificate.secret" .Values.admission.certificate.secret }}
{{- else -}}
{{ include "konverge.fleet" . }}-admission
{{- end -}}
{{- end -}}
