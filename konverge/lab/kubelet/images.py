"""Which program of this machine an image stands for."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from konverge.errors import NotFound

KONG_COMMAND = "konverge.lab.kong.command"


@dataclass(frozen=True, slots=True)
class Program:
    """A Python module run as ``-m module``, or ``function`` of it called, or (no module) a host command."""

    module: str = ""
    function: str = ""


HOST = Program()
KNOWN: tuple[tuple[str, Program], ...] = (
    ("kong/kubernetes-ingress-controller", Program("konverge.lab.sidecar")),
    ("kong", Program("konverge.lab.kong")),
    ("library/kong*", Program("konverge.lab.kong")),
    ("kong-*", Program("konverge.lab.kong")),
    ("kong/kong*", Program("konverge.lab.kong")),
    ("konverge/echo*", Program("konverge.lab.echo")),
    ("konverge/konverge*", Program("konverge.cli.main", "run")),
    ("lab/host*", HOST),
)
"""Patterns over the repository without registry host and tag, the first match wins."""


ENTRY_POINTS = frozenset({"konverge", "docker-entrypoint.sh", "entrypoint.sh", "echo-server", "manager"})
"""Names of the programs that the known images start with."""


def find_program(image: str) -> Program:
    """Return the program of an image; NotFound lists the images that are known."""
    repository = repository_of(image)
    for pattern, program in KNOWN:
        if fnmatch.fnmatchcase(repository, pattern):
            return program
    known = ", ".join(pattern for pattern, _ in KNOWN)
    raise NotFound(
        f'failed to pull and unpack image "{image}": the lab has no such image. Known images: {known}',
        reason="ErrImagePull",
        hint="explanation/lab.md#images",
    )


def repository_of(image: str) -> str:
    """Return the repository of an image reference: no registry host, no tag, no digest."""
    name = image.partition("@")[0]
    first, _, rest = name.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        name = rest
    head, _, last = name.rpartition("/")
    last = last.partition(":")[0]
    return f"{head}/{last}" if head else last


def image_id(image: str) -> str:
    """Return a stable stand-in for the digest of an image."""
    return f"{repository_of(image)}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def resolve_command(argv: tuple[str, ...]) -> tuple[Program, tuple[str, ...]]:
    """Return the program of a command run inside a container: ``kong ...`` is the stand-in's command."""
    if argv and PurePosixPath(argv[0]).name == "kong":
        return Program(KONG_COMMAND), argv[1:]
    return HOST, argv


def resolve_container(
    image: str, command: tuple[str, ...], arguments: tuple[str, ...]
) -> tuple[Program, tuple[str, ...]]:
    """Return program and arguments of a container.

    For an image of ours the image's own entry point (``kong docker-start``, ``konverge``, ``/manager`` ...) is
    dropped from the command line; any other command replaces the image's program, as in a container.
    """
    program = find_program(image)
    line = command + arguments
    if not program.module:
        return resolve_command(line)
    if line and PurePosixPath(line[0]).name in ENTRY_POINTS:
        line, command = line[1:], ()
    if line[:2] == ("kong", "docker-start"):
        return program, line[2:]
    if command or line[:1] == ("kong",):
        return resolve_command(line)
    return program, line
