"""SPDY/3.1 as Kubernetes uses it for exec, attach and port-forward: frames, sessions and streams."""
