"""The Kubernetes API: client, custom resources, exec and port-forward."""
