"""The failure of loading TLS files; apart from the rest, so that it can be named without loading OpenSSL."""

from __future__ import annotations


class BrokenFiles(Exception):
    """A certificate, key or bundle cannot be loaded; the text is nginx's."""
