"""A raw client for a stand-in server in the same process."""

from __future__ import annotations

import base64
import io
import json
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp

from konverge.lab.apiserver import ApiServer


@dataclass
class Wire:
    """Sends requests as the administrator."""

    session: aiohttp.ClientSession
    url: str

    async def send(
        self, method: str, path: str, body: Any = None, media: str = "application/json", **headers: str
    ) -> tuple[int, Any]:
        data = io.BytesIO(json.dumps(body).encode()) if body is not None else None
        sent = {"Content-Type": media, **headers}
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            text = await response.text()
            try:
                return response.status, json.loads(text)
            except ValueError:
                return response.status, text


def context_of(server: ApiServer) -> ssl.SSLContext:
    document = json.loads(server.kubeconfig.read_text())
    user = document["users"][0]["user"]
    ca = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=ca)
    certificate, key = server.directory / "test.crt", server.directory / "test.key"
    certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
    key.write_bytes(base64.b64decode(user["client-key-data"]))
    context.load_cert_chain(certificate, key)
    return context
