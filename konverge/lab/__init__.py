"""The embedded cluster: stand-in Kubernetes API, pods as processes, stand-in Kong."""
