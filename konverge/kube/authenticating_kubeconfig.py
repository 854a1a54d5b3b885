"""Reads the configuration of a client: a kubeconfig, or the account of the pod that this runs in."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigLoader, KubeConfigMerger

from konverge.errors import UsageError
from konverge.kube.authenticating import Login
from konverge.kube.authenticating_exec import Plugin, PluginFailed


class Loader(KubeConfigLoader):  # type: ignore[misc]
    """The official reader of a kubeconfig; an exec plugin is ours, and its failure is an error."""

    login: Login | None = None
    """Set where the user of the context has an exec plugin."""

    async def load_from_exec_plugin(self) -> bool:
        """Sign in; called by the official loader."""
        self.login = Login(Plugin.parse(self._user["exec"].value))
        await self.login.sign_in()
        return True

    async def load_and_set(self, client_configuration: Configuration) -> None:
        """Write everything into a configuration."""
        await super().load_and_set(client_configuration)
        if self.login is not None:
            self.login.write_to(client_configuration)


async def load_configuration(
    kubeconfig: str | Path | None, context: str | None
) -> tuple[Configuration, str, Login | None]:
    """Return configuration, namespace and login; UsageError with reason BadKubeconfig where nothing is usable."""
    configuration = Configuration()
    if kubeconfig and not await asyncio.to_thread(_any_exists, str(kubeconfig)):
        raise bad_kubeconfig(kubeconfig, FileNotFoundError("no such file"))
    try:
        paths = str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
        loader = Loader(config_dict=KubeConfigMerger(paths).config, config_base_path=None, active_context=context)
        await loader.load_and_set(configuration)
        return configuration, loader.current_context["context"].get("namespace") or "default", loader.login
    except PluginFailed as error:
        # Whoever names a login does not mean the pod's account.
        raise bad_kubeconfig(kubeconfig, error) from error
    except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if kubeconfig or context:
            raise bad_kubeconfig(kubeconfig, error) from error
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            raise bad_kubeconfig(kubeconfig, error) from error
    except Exception as error:  # PyYAML's errors share no base with the others
        raise bad_kubeconfig(kubeconfig, error) from error
    return configuration, "default", None


def bad_kubeconfig(path: str | Path | None, error: Exception) -> UsageError:
    """Say what is wrong with a kubeconfig, or with the certificates that it names."""
    shown = path or "the default kubeconfig"
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(
        f"No usable Kubernetes configuration in {shown}: {cause}",
        reason="BadKubeconfig",
        hint="reference/errors.md#bad-kubeconfig",
    )


def _any_exists(paths: str) -> bool:
    return any(os.path.exists(path) for path in paths.split(os.pathsep))
