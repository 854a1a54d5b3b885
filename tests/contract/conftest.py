"""Which API server the contract suites run against."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kubeconfig",
        default=None,
        help="run the API conformance suite against the cluster of this kubeconfig instead of the stand-in",
    )
