"""Helm's own storage: a release is a Secret of type ``helm.sh/release.v1``.

The payload is base64(gzip(JSON)), and the Secret's data is base64 once more, as every Secret's (helm
``pkg/storage/driver``). What is not known here (the chart's templates and default values) is left empty.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from konverge.errors import Invalid
from konverge.kube.resources import Object

SECRET_TYPE = "helm.sh/release.v1"  # noqa: S105 - a type, no password


@dataclass(frozen=True, slots=True)
class Chart:
    """The metadata of a chart as far as it is stored with a release."""

    name: str
    version: str
    app_version: str
    home: str = ""
    dependency: str = ""

    def metadata(self) -> dict[str, Any]:
        """Return the chart's Chart.yaml as helm keeps it."""
        document: dict[str, Any] = {
            "name": self.name,
            "home": self.home,
            "version": self.version,
            "description": "The Cloud-Native Ingress and API-management",
            "apiVersion": "v2",
            "appVersion": self.app_version,
        }
        if self.dependency:
            document["dependencies"] = [
                {"name": self.dependency, "version": "11.9.13", "condition": f"{self.dependency}.enabled"}
            ]
        return document


def release_secret(
    release: str,
    namespace: str,
    chart: Chart,
    *,
    config: dict[str, Any],
    manifest: str,
    deployed_at: datetime,
    revision: int = 1,
) -> Object:
    """Return the Secret of a deployed revision; ``config`` is what the user set, ``manifest`` the rendered YAML."""
    moment = deployed_at.isoformat().replace("+00:00", "Z")
    document = {
        "name": release,
        "info": {
            "first_deployed": moment,
            "last_deployed": moment,
            "deleted": "",
            "description": "Install complete",
            "status": "deployed",
        },
        "chart": {
            "metadata": chart.metadata(),
            "lock": None,
            "templates": [],
            "values": {},
            "schema": None,
            "files": None,
        },
        "config": config,
        "manifest": manifest,
        "version": revision,
        "namespace": namespace,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"sh.helm.release.v1.{release}.v{revision}",
            "namespace": namespace,
            "labels": {
                "modifiedAt": str(int(deployed_at.timestamp())),
                "name": release,
                "owner": "helm",
                "status": "deployed",
                "version": str(revision),
            },
        },
        "type": SECRET_TYPE,
        "data": {"release": encode_release(document)},
    }


def encode_release(document: dict[str, Any]) -> str:
    """Return the value of ``data.release`` for a release document."""
    packed = gzip.compress(orjson.dumps(document), compresslevel=9, mtime=0)
    return base64.b64encode(base64.b64encode(packed)).decode()


def decode_release(secret: Object) -> dict[str, Any]:
    """Return the release document of a Secret; Invalid where it is none."""
    name = secret.get("metadata", {}).get("name", "")
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        # Releases from before helm 3 gained compression are plain JSON: the gzip magic decides.
        content = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
        document: dict[str, Any] = orjson.loads(content)
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise Invalid(f"Secret {name} field data.release is no Helm release: {error}") from error
    return document
