"""The listeners: one per address and port of the tables, open only while there is an endpoint."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import socket

from konverge.lab.balancer.choosing import Chooser
from konverge.lab.balancer.counting import Counts, label_of
from konverge.lab.balancer.faults import Faults
from konverge.lab.balancer.piping import SYN_SECONDS, Ending, Pipe
from konverge.lab.balancer.polling import Poller
from konverge.lab.balancer.tables import Address, Rule, Table

log = logging.getLogger(__name__)

BACKLOG = 4096
ACCEPTS = 128
"""Connections accepted in one turn of the loop, so that a flood does not starve the others."""
UNPRIVILEGED_OFFSET = 8000
"""Added to ports below 1024 where the process may not bind them: 80 becomes 8080."""


class Listeners:
    """Accepts connections on the addresses of both tiers and pipes them to endpoints."""

    def __init__(self, chooser: Chooser, counts: Counts) -> None:
        self.faults = Faults()
        self.rules: Table = {}
        self.moved: dict[Address, Address] = {}
        """Address wanted -> address bound, where a port needed privileges."""
        self.failed: dict[Address, str] = {}
        """Addresses that could not be bound, and why."""
        self._chooser = chooser
        self._counts = counts
        self._sockets: dict[Address, socket.socket] = {}
        self._pipes: set[Pipe] = set()
        self._poller: Poller | None = None

    @property
    def open(self) -> frozenset[Address]:
        """The addresses that take connections now."""
        return frozenset(self._sockets)

    def apply(self, old: Table, new: Table) -> None:
        """Go from one tier's old table to its new one; connections that are open are left alone."""
        for address in old.keys() - new.keys():
            self._close(address)
            self.rules.pop(address, None)
        for address, rule in new.items():
            if not rule.backends:
                self._close(address)
            self.rules[address] = rule
            if rule.backends:
                self._open(address)

    def close(self) -> None:
        """Close every listener and reset every connection."""
        for address in list(self._sockets):
            self._close(address)
        for pipe in list(self._pipes):
            pipe.end(Ending.RESET)
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def _open(self, address: Address) -> None:
        if address in self._sockets:
            return
        try:
            self._sockets[address] = self._bind(address)
        except OSError as error:
            self.failed[address] = error.strerror or str(error)
            log.error("cannot listen on %s:%d: %s", *address, self.failed[address])
            return
        self.failed.pop(address, None)
        asyncio.get_running_loop().add_reader(self._sockets[address], self._accept, address)

    def _bind(self, address: Address) -> socket.socket:
        try:
            return listen_on(address)
        except PermissionError:
            moved = (address[0], address[1] + UNPRIVILEGED_OFFSET)
            listener = listen_on(moved)
            self.moved[address] = moved
            return listener

    def _close(self, address: Address) -> None:
        listener = self._sockets.get(address)
        if listener is None:
            return
        # What waits in the backlog has connected before the change: it goes where the old rule leads.
        self._accept(address)
        del self._sockets[address]
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()

    def _accept(self, address: Address) -> None:
        listener = self._sockets[address]
        for _ in range(ACCEPTS):
            try:
                client, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    log.error("out of file descriptors")
                return
            client.setblocking(False)
            self._start(address, client, peer[0])

    def _start(self, address: Address, client: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        rule = self.rules.get(address)
        backend = self._chooser.choose(rule, peer, loop.time()) if rule else None
        if rule is None or backend is None:
            client.close()
            return
        label = label_of(rule, backend)
        self._poller = self._poller or Poller(loop)
        pipe = self._make_pipe(self._poller, client, label)
        self._pipes.add(pipe)
        self._send_off(loop, pipe, rule, backend)

    def _make_pipe(self, poller: Poller, client: socket.socket, label: tuple[str, str, str]) -> Pipe:
        counts = self._counts

        def opened() -> None:
            counts.connections[label] += 1
            counts.active[label] += 1

        def ended(pipe: Pipe, how: Ending) -> None:
            self._pipes.discard(pipe)
            counts.bytes += pipe.moved
            if how is Ending.REFUSED:
                counts.refused[label] += 1
                return
            counts.active[label] -= 1
            if how is Ending.RESET:
                counts.resets[label] += 1

        return Pipe(poller, client, opened, ended)

    def _send_off(self, loop: asyncio.AbstractEventLoop, pipe: Pipe, rule: Rule, backend: Address) -> None:
        fault = self.faults.of(rule, backend)
        if fault is None:
            pipe.dial(backend)
        elif fault.reset_share and random.random() < fault.reset_share:
            pipe.end(Ending.REFUSED)
        elif fault.drop:
            pipe.hang()
            loop.call_later(SYN_SECONDS, pipe.end, Ending.REFUSED)
        elif fault.delay:
            loop.call_later(fault.delay, pipe.dial, backend)
        else:
            pipe.dial(backend)


def listen_on(address: Address) -> socket.socket:
    """Return a listening, non-blocking socket."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
