"""One process with any number of bare Admin APIs over mutual TLS 1.3, for measuring clients and nothing else.

Each listens on a port of its own and knows two requests: ``POST /config`` hashes the body as it comes and answers
201, with a body as large as the configuration where ``--answer full`` (as Kong does); ``GET /status`` tells the md5.
No configuration is parsed or kept, so what is measured is the client.

Usage: ``python tools/pushing/serving.py DIRECTORY COUNT [--answer full|short] [--load SECONDS]``; DIRECTORY holds
``server.pem`` (chain and key) and ``ca.pem``. Prints the ports as JSON and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import os
import socket
import ssl
import sys
from pathlib import Path

from konverge.lab.pod import die_with_parent

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE = 256 * 1024


class Server:
    """What one Admin API has loaded."""

    def __init__(self, answer: str, load: float) -> None:
        self.hash = "0" * 32
        self.full = answer == "full"
        self.load = load


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, bodies hashed and dropped."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.head = b""
        self.left = -1
        self.size = 0
        self.digest = hashlib.md5()
        self.writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.writable.set()

    def pause_writing(self) -> None:
        """Wait with the rest of an answer."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Go on with an answer."""
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self.left < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data, self.head = self.head[:end].lower(), self.head[end + 4 :], b""
            if head.startswith(b"get"):
                body = b'{"configuration_hash":"%b","server":{}}' % self.server.hash.encode()
                self.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                return
            self.size = self.left = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            self.digest = hashlib.md5()
            if b"100-continue" in head:
                self.transport.write(CONTINUE)
        self.digest.update(data)
        self.left -= len(data)
        if self.left == 0:
            self.left = -1
            self.server.hash = self.digest.hexdigest()
            if self.server.load:
                asyncio.get_running_loop().call_later(self.server.load, self.answer)
            else:
                self.answer()

    def answer(self) -> None:
        """Say 201."""
        size = self.size if self.server.full else 2
        self.transport.write(
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
        )
        if size == 2:
            self.transport.write(b"{}")
        else:
            task = asyncio.ensure_future(self.pour(size))
            task.add_done_callback(lambda done: done.exception())

    async def pour(self, size: int) -> None:
        """Write an answer of this size."""
        piece = b"x" * PIECE
        while size > 0 and not self.transport.is_closing():
            await self.writable.wait()
            self.transport.write(piece if size >= PIECE else piece[:size])
            size -= PIECE


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(options.directory / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(options.directory / "ca.pem")
    context.num_tickets = 0
    loop, ports = asyncio.get_running_loop(), []
    for _ in range(options.count):
        server = Server(options.answer, options.load)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        await loop.create_server(lambda server=server: Connection(server), sock=listener, ssl=context)
        ports.append(listener.getsockname()[1])
    print(json.dumps(ports), flush=True)
    gc.freeze()
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--answer", choices=("full", "short"), default="full")
    parser.add_argument("--load", type=float, default=0.0)
    die_with_parent(os.getppid())
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
