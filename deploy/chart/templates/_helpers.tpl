{{- define "pointsman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The release's name where it says the chart's already; 50 characters leave room for what follows. */}}
{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "pointsman.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "pointsman.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pointsman.controller" -}}
{{ include "pointsman.fullname" . }}-controller
{{- end }}

{{- define "pointsman.serviceAccount" -}}
{{- if .Values.controller.serviceAccount.create }}
{{- default (include "pointsman.controller" .) .Values.controller.serviceAccount.name }}
{{- else }}
{{- required "controller.serviceAccount.name is wanted where none is created" .Values.controller.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pointsman.image" -}}
{{- $image := .Values.image }}
{{- $name := $image.repository }}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $image.repository }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pointsman.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Data planes, whatever Gateway they belong to. */}}
{{- define "pointsman.dataPlaneSelector" -}}
matchLabels: {app.kubernetes.io/managed-by: pointsman}
matchExpressions: [{key: gateway.networking.k8s.io/gateway-name, operator: Exists}]
{{- end }}

{{/* What the controller reads and does in the namespaces it serves. */}}
{{- define "pointsman.namespacedRules" -}}
# What routes and pools say, and the statuses that are said of them.
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, httproutes, grpcroutes, tlsroutes, referencegrants, backendtlspolicies, listenersets]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/status, httproutes/status, grpcroutes/status, tlsroutes/status, backendtlspolicies/status, listenersets/status]
  verbs: [patch]
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io, llm-d.ai]
  resources: [inferencepools, inferencemodels, inferenceobjectives, inferencemodelrewrites, inferencepoolimports]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.k8s.io, inference.networking.x-k8s.io, llm-d.ai]
  resources: [inferencepools/status, inferencemodels/status, inferenceobjectives/status, inferencemodelrewrites/status]
  verbs: [patch]
# Servers.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Data planes: what is provisioned for a Gateway, in its namespace.
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{/* What is read and said of objects without a namespace. */}}
{{- define "pointsman.clusterRules" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch]
# Routes may be allowed by labels of their namespaces.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
# Whose data plane asks for a snapshot.
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
{{- end }}

{{/* A controller that reads some namespaces only must find the class's parameters in one of them. */}}
{{- define "pointsman.parametersNamespace" -}}
{{- first (append .Values.controller.namespaces .Release.Namespace) }}
{{- end }}
