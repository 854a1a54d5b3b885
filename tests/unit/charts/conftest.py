"""Both helms, for every test of the chart."""

from __future__ import annotations

import pytest
from chart_rendering import Helm, Object, pick_helm


@pytest.fixture(scope="session", params=["3", "4"], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    return pick_helm(request.param)


@pytest.fixture(scope="session")
def objects(helm: Helm) -> list[Object]:
    """What the default values render to."""
    return helm.render()
