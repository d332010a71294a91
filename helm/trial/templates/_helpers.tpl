{{- define "trial.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "trial.metadata" -}}
name: {{ .root.Release.Name }}-{{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "trial.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: trial
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- /* A Deployment of one pod and its Service. Takes root, name, image, args, ports (name to number), config, mount, ready (path and port), memory, env. */ -}}
{{- define "trial.server" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "trial.metadata" . | nindent 2 }}
spec:
  replicas: 1
  # What it knows is in its memory: two at once would each know half.
  strategy: {type: Recreate}
  selector:
    matchLabels:
      {{- include "trial.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "trial.selector" . | nindent 8 }}
      annotations:
        checksum/config: {{ toYaml .config | sha256sum }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65534
        runAsGroup: 65534
        fsGroup: 65534
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .name }}
          image: {{ .image | quote }}
          args:
            {{- toYaml .args | nindent 12 }}
          {{- with .env }}
          env:
            {{- range $name, $value := . }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
          {{- end }}
          ports:
            {{- range $name, $number := .ports }}
            - name: {{ $name }}
              containerPort: {{ $number }}
            {{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          readinessProbe:
            {{- if .ready.path }}
            httpGet: {path: {{ .ready.path }}, port: {{ .ready.port }}}
            {{- else }}
            tcpSocket: {port: {{ .ready.port }}}
            {{- end }}
            periodSeconds: 3
          resources:
            requests: {cpu: 50m, memory: {{ .memory }}}
            limits: {memory: {{ .memory }}}
          volumeMounts:
            - name: config
              mountPath: {{ .mount }}
              readOnly: true
            - name: data
              mountPath: /data
            - name: tmp
              mountPath: /tmp
            {{- range .mounts }}
            - name: {{ .name }}
              mountPath: {{ .path }}
              readOnly: true
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ .root.Release.Name }}-{{ .name }}}
        - name: data
          emptyDir: {}
        - name: tmp
          emptyDir: {}
        {{- range .mounts }}
        - name: {{ .name }}
          configMap: {name: {{ $.root.Release.Name }}-{{ .configMap }}}
        {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "trial.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "trial.selector" . | nindent 4 }}
  ports:
    {{- range $name, $number := .ports }}
    - name: {{ $name }}
      port: {{ $number }}
      targetPort: {{ $name }}
    {{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "trial.metadata" . | nindent 2 }}
data:
  {{- toYaml .config | nindent 2 }}
{{- end -}}
