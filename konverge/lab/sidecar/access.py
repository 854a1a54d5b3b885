"""The controller's way to the API server: the account that is mounted into its pod."""

from __future__ import annotations

import asyncio

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


async def connect(pod: PodEnvironment) -> KubeClient:
    """Return a client with the pod's token, which is read again every minute; a kubeconfig where there is no pod.

    Raises UsageError where neither is there.
    """
    token, authority = pod.resolve_path(f"{ACCOUNT}/token"), pod.resolve_path(f"{ACCOUNT}/ca.crt")
    if not pod.mounts:
        return await KubeClient.connect()
    configuration = Configuration()
    try:
        loader = InClusterConfigLoader(token_filename=str(token), cert_filename=str(authority))
        await asyncio.to_thread(loader.load_and_set, configuration)
    except (ConfigException, OSError) as error:
        raise UsageError(
            f"The pod's account in {ACCOUNT} is not usable: {error}", hint="reference/load.md#per-pod-controller"
        ) from error
    return KubeClient(configuration, pod.namespace or "default")
