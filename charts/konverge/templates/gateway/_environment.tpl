{{/*
Settings of Kong: DB-less, the Admin API behind mutual TLS, no session resumption (which skips the check of the client
certificate, so a retired identity would keep its access for up to a day), body limit and buffer raised together.
*/}}
{{- define "konverge.gatewayEnvironment" -}}
- {name: KONG_DATABASE, value: "off"}
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
