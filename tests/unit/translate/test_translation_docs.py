"""The pages of the translation name every reason, feature, kind and annotation of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from konverge.translate import annotations, certificates, classes, credentials, service_tls, upstreams
from konverge.translate.gateway import listeners
from konverge.translate.kinds import KINDS
from konverge.translate.problems import HINTS, PAGE
from konverge.translate.settings import FEATURES, WITHOUT_EFFECT

DOCS = Path(__file__).parents[3] / "docs"
PAGES = DOCS / "reference" / "translation"
TEXT = "\n".join(page.read_text() for page in sorted(PAGES.glob("*.md")))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("reason", HINTS)
def test_every_reason_has_its_place(reason: str) -> None:
    assert HINTS[reason] in anchors(DOCS / PAGE)
    assert reason in (DOCS / PAGE).read_text()


@pytest.mark.parametrize("feature", [*FEATURES, *WITHOUT_EFFECT])
def test_every_feature_is_described(feature: str) -> None:
    assert f"`{feature}`" in (PAGES / "features.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_page(kind: str) -> None:
    pages = {"GatewayClass": "gateway", "IngressClassParameters": "ingressclass"}
    page = PAGES / f"{pages.get(kind, kind.lower())}.md"
    assert kind in page.read_text()
    assert page.name in (PAGES / "README.md").read_text()


def find_annotations() -> set[str]:
    modules = (annotations, certificates, classes, credentials, service_tls, upstreams, listeners)
    source = "\n".join(Path(str(module.__file__)).read_text() for module in modules)
    names = set(re.findall(r'"((?:konghq\.com|[a-z.]+\.kubernetes\.io)/[a-z.-]+)"', source))
    return names | {f"konghq.com/{name}" for name in re.findall(r"\{PREFIX\}/([a-z-]+)", source)}


@pytest.mark.parametrize("name", sorted(find_annotations()))
def test_every_annotation_is_described(name: str) -> None:
    assert name in TEXT


def test_annotations_are_found_at_all() -> None:
    assert {"konghq.com/strip-path", "konghq.com/client-cert", "konghq.com/upstream-policy"} <= find_annotations()
