"""Parts of the benchmark of the load on the Kubernetes API: its counters, and per-pod controllers in one process."""
