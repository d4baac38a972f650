{{/* The settings of the picker: this chart's tree, and llm-d's over it. */}}
{{- define "picker.values" -}}
{{- $router := default dict .Values.router }}
{{- $picker := mergeOverwrite (deepCopy .Values.inferenceExtension) (default dict $router.epp | deepCopy) }}
{{- range $key := list "monitoring" "tracing" "latencyPredictor" }}
{{- with get $router $key }}
{{- $_ := set $picker $key (mergeOverwrite (default dict (get $picker $key)) (deepCopy .)) }}
{{- end }}
{{- end }}
{{- with (default dict $router.inferencePool).failureMode }}{{ $_ := set $picker "failureMode" . }}{{ end }}
{{- toYaml $picker }}
{{- end }}

{{- define "picker.pool" -}}
{{- $router := default dict .Values.router }}
{{- $pool := deepCopy .Values.inferencePool }}
{{- with $router.inferencePool }}
{{- if hasKey . "create" }}{{ $_ := set $pool "create" .create }}{{ end }}
{{- end }}
{{- with $router.modelServers }}
{{- with .matchLabels }}{{ $_ := set $pool "modelServers" (dict "matchLabels" .) }}{{ end }}
{{- with .targetPorts }}{{ $_ := set $pool "targetPorts" . }}{{ end }}
{{- with .protocol }}{{ $_ := set $pool "modelServerProtocol" . }}{{ end }}
{{- end }}
{{- toYaml $pool }}
{{- end }}

{{- define "picker.route" -}}
{{- $route := deepCopy .Values.experimentalHttpRoute }}
{{- with .Values.httpRoute }}
{{- $_ := set $route "enabled" (default false .create) }}
{{- range $key := list "inferenceGatewayName" "inferenceGatewayNamespace" "requestTimeout" }}
{{- with get $.Values.httpRoute $key }}{{ $_ := set $route $key . }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $route }}
{{- end }}

{{- define "picker.objectives" -}}
{{- $router := default dict .Values.router }}
{{- dict "items" (default .Values.inferenceObjectives $router.inferenceObjectives) | toYaml }}
{{- end }}

{{/* Whether one of several copies picks, as with upstream's picker. The flag says otherwise: then all do. */}}
{{- define "picker.elects" -}}
{{- $picker := include "picker.values" . | fromYaml }}
{{- $flags := default dict $picker.flags }}
{{- if not (kindIs "map" $flags) }}{{ $flags = dict }}{{ range $picker.flags }}{{ $_ := set $flags .name .value }}{{ end }}{{ end }}
{{- if hasKey $flags "ha-enable-leader-election" }}
{{- if eq (toString (get $flags "ha-enable-leader-election")) "true" }}true{{ end }}
{{- else if gt (int $picker.replicas) 1 }}true{{ end }}
{{- end }}

{{- define "picker.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-epp
{{- end }}

{{- define "picker.selector" -}}
app.kubernetes.io/name: {{ include "picker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "picker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{ include "picker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "picker.group" -}}
{{ (splitList "/" (include "picker.pool" . | fromYaml).apiVersion) | first }}
{{- end }}

{{/* What values of other charts ask for that is not here: said, never taken in silence. */}}
{{- define "picker.refuse" -}}
{{- $picker := include "picker.values" . | fromYaml }}
{{- $router := default dict .Values.router }}
{{- if (default dict $picker.latencyPredictor).enabled }}{{ fail "latencyPredictor: the cost model predicts within the picker; leave it out" }}{{ end }}
{{- if (default dict $picker.sidecar).enabled }}{{ fail "inferenceExtension.sidecar: add containers to the Deployment with a post-renderer" }}{{ end }}
{{- if (default dict $picker.tracing).enabled }}{{ fail "tracing: spans are not exported yet; set tracing.enabled to false" }}{{ end }}
{{- if (default dict $picker.monitoring.gke).enabled }}{{ fail "monitoring.gke: this chart makes no PodMonitoring; set it to false, and make one beside it" }}{{ end }}
{{- range $part := list "proxy" "tokenizer" }}
{{- if (default dict (get $router $part)).enabled }}{{ fail (printf "router.%s: not part of this chart" $part) }}{{ end }}
{{- end }}
{{- if eq .Values.provider.name "gke" }}{{ fail "provider.name gke: this chart makes no GCPBackendPolicy or HealthCheckPolicy; use none, and make these beside it" }}{{ end }}
{{- if and $picker.pluginsConfigFile (not (hasKey (default dict $picker.pluginsCustomConfig) $picker.pluginsConfigFile)) (ne $picker.pluginsConfigFile "default-plugins.yaml") }}
{{- fail (printf "pluginsConfigFile %s is not among pluginsCustomConfig" $picker.pluginsConfigFile) }}
{{- end }}
{{- end }}
