"""Kubernetes objects to a Kong declarative configuration, as KIC would; pure."""
