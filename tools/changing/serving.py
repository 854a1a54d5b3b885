"""Bare gateways in one process, for measuring the controller and nothing else: they hash, and answer the marker.

Each has an address of its own with the ports of a Kong: 8444 over mutual TLS (``/``, ``/status``, ``/config``), 8000
(the marker of what was posted last). A configuration is searched for its marker, not parsed; LOAD seconds pass
between the last byte and the answer, as in a Kong that loads. One thread per connection reads into one buffer and
hashes on the way: reading, decrypting and hashing hold no lock, so that ten of them cost about what ten nginx cost.

Usage: ``python -m changing.serving DIRECTORY LOAD ADDRESS...``; DIRECTORY holds the files of a proxy's identity.
Prints a line when all listen; ends with its parent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

from konverge.kong.marker import TAG
from konverge.lab.pod import die_with_parent
from konverge.model.proxy import ADMIN_PORT, PROXY_PORT, ZERO_HASH

MARKER = re.compile(rb'"body":"([0-9a-f]{32})","content_type":"text/plain"')
INFO = {"version": "3.9.1", "node_id": "0", "configuration": {"database": "off", "router_flavor": "traditional"}}
PIECE = 256 * 1024
WORDS = {100: "Continue", 200: "OK", 201: "Created", 404: "Not Found"}


class Gateway:
    """What one gateway has loaded."""

    def __init__(self, load: float) -> None:
        self.load = load
        self.hash, self.marker = ZERO_HASH, b""

    def take(self, reader: Any, length: int) -> None:
        """Read a configuration, hash it and load it."""
        content, digest, place = bytearray(length), hashlib.md5(), 0
        view = memoryview(content)
        while place < length:
            taken = reader.readinto1(view[place : place + PIECE])
            if not taken:
                raise ConnectionError("the body broke off")
            digest.update(view[place : place + taken])
            place += taken
        time.sleep(self.load)
        near = content.rfind(TAG.encode())
        found = MARKER.search(content, max(0, near - 4096))
        self.hash, self.marker = digest.hexdigest(), found.group(1) if found else b""

    def answer(
        self, method: str, path: str, headers: dict[str, str], connection: socket.socket, reader: Any
    ) -> bytes:
        """Answer one request to the Admin API."""
        if method == "POST":
            if "expect" in headers:
                connection.sendall(render(100, b""))
            self.take(reader, int(headers["content-length"]))
            return render(201, b"{}")
        known = {"configuration_hash": self.hash, "server": {}} if path == "/status" else INFO
        return render(200, json.dumps(known).encode())


def render(status: int, body: bytes) -> bytes:
    """Return an HTTP answer."""
    head = f"HTTP/1.1 {status} {WORDS[status]}\r\n"
    if status == 100:
        return f"{head}\r\n".encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def converse(gateway: Gateway, connection: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve one connection to its end."""
    try:
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb", PIECE) as reader:
            while line := reader.readline():
                method, path, _ = line.decode("latin-1").split(" ", 2)
                headers: dict[str, str] = {}
                while (line := reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                if context is None:
                    connection.sendall(render(200 if gateway.marker else 404, gateway.marker))
                    return
                connection.sendall(gateway.answer(method, path, headers, connection, reader))
    except (OSError, ValueError):
        connection.close()


def listen(gateway: Gateway, address: str, port: int, context: ssl.SSLContext | None) -> None:
    """Accept for ever, in a thread."""
    server = socket.create_server((address, port), backlog=256)

    def accept() -> None:
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=converse, args=(gateway, connection, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def serve(directory: Path, load: float, addresses: list[str]) -> None:
    """Serve for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "client-ca.pem")
    for address in addresses:
        gateway = Gateway(load)
        listen(gateway, address, ADMIN_PORT, context)
        listen(gateway, address, PROXY_PORT, None)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    die_with_parent(os.getppid())
    serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
