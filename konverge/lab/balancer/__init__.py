"""The lab's kube-proxy and cloud load balancer: real listeners on the addresses of Services.

Each new TCP connection goes to one endpoint and stays there until it ends, whatever happens to the
endpoints meanwhile. Changes of Services and EndpointSlices are noticed late, as they are on a real cluster.
``python -m konverge.lab.balancer`` runs it in a process of its own.
"""
