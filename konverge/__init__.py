"""Konverge runs a fleet of DB-less Kong Gateway proxies from one place."""

__version__ = "0.1.0"
