"""Fixtures of the Kong client's tests."""

from scripted_gateway import gateways

__all__ = ["gateways"]
