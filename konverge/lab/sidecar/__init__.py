"""The per-pod controller of the legacy topology: watches the cluster and configures the proxy beside it.

It behaves towards the API server and towards Kong as Kong's ingress controller 3.5 does in a DB-less sidecar:
a watch for every kind, a translation at fixed intervals, a push of plain JSON whose hash Kong cannot foresee, no
leader, and status written by every replica. The migration and its measurements need that behaviour, flaws
included.
"""
