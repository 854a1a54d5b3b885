"""The lab's controllers: what kube-controller-manager does to the objects that Konverge touches.

Deployments, ReplicaSets, EndpointSlices, PodDisruptionBudgets and load balancer addresses. All of them are
plain clients of the API server: they list and watch, they are level-triggered, and any of them can be
killed at any instant. ``python -m konverge.lab.controllers`` runs them in a process of their own.
"""
