{{/*
Objects of an older chart in this release, as they live in the cluster. Helm deletes what is no longer in a release
before it waits for what is new; so while a migration runs, this chart renders the live objects unchanged.
*/}}

{{/* "true" for an object of this release that another chart rendered: (dict "context" . "object" $object). */}}
{{- define "konverge.isLegacy" -}}
{{- $metadata := .object.metadata -}}
{{- $annotations := default dict $metadata.annotations -}}
{{- $ours := hasKey (default dict $metadata.labels) "konverge.dev/fleet" -}}
{{- $release := eq (default "" (get $annotations "meta.helm.sh/release-name")) .context.Release.Name -}}
{{- $namespace := eq (default "" (get $annotations "meta.helm.sh/release-namespace")) .context.Release.Namespace -}}
{{- if and $release $namespace (not $ours) (not $metadata.deletionTimestamp) }}true{{ end -}}
{{- end -}}

{{/*
One live object as a manifest: without status and what the server or Helm write into metadata.
(dict "object" $object "apiVersion" "v1" "kind" "Service" "keep" true)
*/}}
{{- define "konverge.live" -}}
{{- $metadata := pick .object.metadata "name" "namespace" "labels" -}}
{{- $annotations := dict -}}
{{- range $key, $value := default dict .object.metadata.annotations -}}
{{- if not (or (hasPrefix "meta.helm.sh/" $key) (hasPrefix "deployment.kubernetes.io/" $key) (hasPrefix "kubectl.kubernetes.io/last-applied" $key)) -}}
{{- $_ := set $annotations $key $value -}}
{{- end -}}
{{- end -}}
{{- if .keep }}{{- $_ := set $annotations "helm.sh/resource-policy" "keep" -}}{{- end -}}
{{- if $annotations }}{{- $_ := set $metadata "annotations" $annotations -}}{{- end -}}
{{- $body := omit .object "apiVersion" "kind" "metadata" "status" -}}
{{- $_ := set $body "apiVersion" .apiVersion -}}
{{- $_ := set $body "kind" .kind -}}
{{- $_ := set $body "metadata" $metadata }}
---
{{ toYaml $body }}
{{- end -}}
