"""Listen directives in Kong's syntax: ``127.0.0.1:8444 http2 ssl backlog=16384, [::1]:8444 ssl`` or ``off``.

The flags are those of ``kong.conf`` (*admin_listen*); those without a meaning for the stand-in are kept and shown.
"""

from __future__ import annotations

from dataclasses import dataclass

FLAGS = (
    "ssl",
    "http2",
    "proxy_protocol",
    "deferred",
    "bind",
    "reuseport",
    "ipv6only=on",
    "ipv6only=off",
    "so_keepalive=on",
    "so_keepalive=off",
)


class BadListen(ValueError):
    """A listen directive is off; the text is Kong's."""


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on."""

    host: str
    port: int
    flags: tuple[str, ...] = ()

    @property
    def ssl(self) -> bool:
        """Tell whether the listener speaks TLS."""
        return "ssl" in self.flags

    @property
    def http2(self) -> bool:
        """Tell whether the listener offers HTTP/2."""
        return "http2" in self.flags

    def text(self, *, http2: bool = True) -> str:
        """Return the directive as Kong prints it."""
        flags = [flag for flag in self.flags if http2 or flag != "http2"]
        return " ".join([f"{self.host}:{self.port}", *flags])

    def describe(self) -> dict[str, object]:
        """Return the object that GET / shows in ``configuration.*_listeners``."""
        shown: dict[str, object] = {flag: flag in self.flags for flag in FLAGS}
        shown["so_keepalive=%w*:%w*:%d*"] = any(
            flag.startswith("so_keepalive=") and ":" in flag for flag in self.flags
        )
        backlog = next((flag for flag in self.flags if flag.startswith("backlog=")), None)
        shown[backlog or "backlog=%d+"] = backlog is not None
        shown |= {"ip": self.host, "port": self.port, "listener": self.text(http2=False)}
        return shown


def parse_listen(text: str) -> list[Listen]:
    """Parse a comma separated list of listen directives. Raises BadListen."""
    found: list[Listen] = []
    for part in text.split(","):
        words = part.split()
        if not words or words[0].lower() == "off":
            continue
        host, colon, port = words[0].rpartition(":")
        if not colon or not port.isdigit() or not 0 <= int(port) < 65536:
            raise BadListen(
                f"{part.strip()!r} must be of form: [off] | <ip>:<port> [ssl] [http2] [proxy_protocol] [deferred] "
                "[bind] [reuseport] [backlog=%d+] [ipv6only=on] [ipv6only=off] [so_keepalive=on] [so_keepalive=off] "
                "[so_keepalive=%w*:%w*:%d*], [... next entry ...]"
            )
        for flag in words[1:]:
            if flag not in FLAGS and not flag.startswith(("backlog=", "so_keepalive=")):
                raise BadListen(f"unknown listen flag {flag!r}")
        found.append(Listen(host, int(port), tuple(words[1:])))
    return found
