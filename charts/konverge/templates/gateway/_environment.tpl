{{- define "konverge.databaseEnvironment" -}}
{{- $database := .Values.fleet.database -}}
{{- if eq .Values.fleet.mode "dbless" -}}
- {name: KONG_DATABASE, value: "off"}
{{- else -}}
- {name: KONG_DATABASE, value: postgres}
- {name: KONG_PG_HOST, value: {{ required "fleet.mode db needs fleet.database.host" $database.host | quote }}}
- {name: KONG_PG_PORT, value: {{ int $database.port | toString | quote }}}
- {name: KONG_PG_DATABASE, value: {{ $database.name | quote }}}
- {name: KONG_PG_USER, value: {{ $database.user | quote }}}
- {name: KONG_PG_SSL, value: {{ ternary "on" "off" $database.tls | quote }}}
- {name: KONG_PG_SSL_VERIFY, value: {{ ternary "on" "off" $database.tls | quote }}}
{{- end -}}
{{- end -}}

{{/* The password is no plain value. */}}
{{- define "konverge.databasePassword" -}}
{{- if and (eq .Values.fleet.mode "db") .Values.fleet.database.passwordSecret }}
- name: KONG_PG_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.fleet.database.passwordSecret }}, key: password}
{{- end }}
{{- end -}}

{{/*
Settings of Kong: where its entities are, the Admin API behind mutual TLS, no session resumption (which skips the check of the client
certificate, so a retired identity would keep its access for up to a day), body limit and buffer raised together.
*/}}
{{- define "konverge.gatewayEnvironment" -}}
{{- include "konverge.databaseEnvironment" . }}
- {name: KONG_PREFIX, value: /kong_prefix/}
- {name: KONG_ROUTER_FLAVOR, value: {{ .Values.gateway.routerFlavor }}}
- {name: KONG_NGINX_WORKER_PROCESSES, value: {{ .Values.gateway.workerProcesses | quote }}}
- {name: KONG_ADMIN_LISTEN, value: 0.0.0.0:8444 http2 ssl}
- {name: KONG_STATUS_LISTEN, value: 0.0.0.0:8100}
- {name: KONG_PROXY_LISTEN, value: "0.0.0.0:8000, 0.0.0.0:8443 http2 ssl"}
- {name: KONG_ADMIN_SSL_CERT, value: /etc/konverge/identity/tls.crt}
- {name: KONG_ADMIN_SSL_CERT_KEY, value: /etc/konverge/identity/tls.key}
- {name: KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT, value: "on"}
- {name: KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE, value: /etc/konverge/identity/client-ca.pem}
- {name: KONG_NGINX_ADMIN_SSL_VERIFY_DEPTH, value: "2"}
- {name: KONG_NGINX_ADMIN_SSL_PROTOCOLS, value: TLSv1.3}
- {name: KONG_NGINX_ADMIN_SSL_SESSION_TICKETS, value: "off"}
- {name: KONG_NGINX_ADMIN_SSL_SESSION_CACHE, value: "off"}
- {name: KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE, value: {{ .Values.gateway.maxConfigurationSize }}}
- {name: KONG_NGINX_ADMIN_CLIENT_BODY_BUFFER_SIZE, value: {{ .Values.gateway.maxConfigurationSize }}}
- {name: KONG_PROXY_ACCESS_LOG, value: /dev/stdout}
- {name: KONG_PROXY_ERROR_LOG, value: /dev/stderr}
- {name: KONG_ADMIN_ACCESS_LOG, value: /dev/stdout}
- {name: KONG_ADMIN_ERROR_LOG, value: /dev/stderr}
{{- end -}}

{{/* Further settings; one that the chart sets itself would be taken or lost by its place in the list. */}}
{{- define "konverge.furtherEnvironment" -}}
{{- $reserved := list "KONG_DECLARATIVE_CONFIG" -}}
{{- range include "konverge.gatewayEnvironment" . | fromYamlArray }}{{ $reserved = append $reserved .name }}{{ end -}}
{{- range .Values.gateway.env -}}
{{- if has .name $reserved -}}
{{- fail (printf "gateway.env: %s is not for you to set: the chart decides it, or a value beside gateway.env" .name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway.env }}
{{- toYaml . }}
{{- end }}
{{- end -}}
