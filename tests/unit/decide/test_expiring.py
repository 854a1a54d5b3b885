"""Certificates that nobody renews are told of at a third and at a tenth of their lifetime, and as a metric always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from konverge.decide.expiring import certificate_metrics, find_warning, list_warnings
from konverge.model.rotation import CertificateView

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=30)


def view(role: str = "proxy", pod: str = "p1") -> CertificateView:
    return CertificateView(
        role=role,
        subject="CN=x",
        issuer="CN=y",
        serial="ab",
        starts=START,
        expires=END,
        renew_at=END,
        due=False,
        pod=pod,
    )


@pytest.mark.parametrize(
    ("days", "part"), [(0, 0.0), (19, 0.0), (20, 1 / 3), (26, 1 / 3), (27, 1 / 10), (30, 1 / 10), (40, 1 / 10)]
)
def test_the_part_that_is_left_decides(days: int, part: float) -> None:
    assert find_warning(START, END, START + timedelta(days=days)) == part


def test_a_certificate_without_a_lifetime_is_a_warning() -> None:
    assert find_warning(END, START, START) == 1 / 10


@pytest.mark.parametrize(
    ("days", "kind", "words"),
    [
        (21, "Normal", "less than a third of its lifetime is left"),
        (28, "Warning", "less than a tenth"),
        (31, "Warning", "The certificate of proxy p1 (serial ab) expired at 2026-01-31T00:00:00Z"),
    ],
)
def test_what_is_said(days: int, kind: str, words: str) -> None:
    (concern,) = list_warnings([view()], START + timedelta(days=days))
    assert (concern.kind, words in concern.message) == (kind, True)
    assert list_warnings([view()], START) == []


def test_metrics_are_prometheus_text() -> None:
    lines = certificate_metrics('sh"op', [view(), view("next authority", "")], END - timedelta(seconds=90))
    assert lines == [
        "# HELP konverge_certificate_expiry_seconds Seconds until a certificate of the fleet expires.",
        "# TYPE konverge_certificate_expiry_seconds gauge",
        'konverge_certificate_expiry_seconds{fleet="sh\\"op",role="proxy",pod="p1"} 90',
        'konverge_certificate_expiry_seconds{fleet="sh\\"op",role="next_authority",pod=""} 90',
    ]
    assert certificate_metrics("shop", [view()], END + timedelta(seconds=5))[-1].endswith(" -5")
