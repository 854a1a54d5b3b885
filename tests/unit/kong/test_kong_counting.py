"""Traffic counters out of Prometheus text: summed over routes, None where there are none."""

from __future__ import annotations

from konverge.kong.counting import parse_counters
from konverge.model.counters import Counters

TEXT = """\
# HELP kong_http_requests_total HTTP status codes per consumer/service/route in Kong
# TYPE kong_http_requests_total counter
kong_http_requests_total{service="a",route="r1",code="200",source="service",workspace="default",consumer=""} 90
kong_http_requests_total{service="a",route="r1",code="503",source="kong",workspace="default",consumer=""} 7
kong_http_requests_total{service="b",route="odd\\"code=\\"999",code="404",source="kong",workspace="default"} 3
# TYPE kong_request_latency_ms histogram
kong_request_latency_ms_bucket{service="a",route="r1",workspace="default",le="25"} 80
kong_request_latency_ms_bucket{service="a",route="r1",workspace="default",le="+Inf"} 97
kong_request_latency_ms_count{service="a",route="r1",workspace="default"} 97
kong_request_latency_ms_sum{service="a",route="r1",workspace="default"} 1.455e+03
kong_upstream_latency_ms_sum{service="a",route="r1",workspace="default"} 900
kong_nginx_requests_total{node_id="x",subsystem="http"} 12345
"""


def test_requests_errors_and_latencies_are_summed() -> None:
    found = parse_counters(TEXT)
    assert found is not None
    assert found == Counters(requests=100, errors=7, latency_count=97, latency_ms=1455)
    assert found.error_share == 0.07
    assert found.mean_latency == 15.0


def test_gauges_alone_are_no_counters() -> None:
    assert parse_counters('kong_nginx_requests_total{subsystem="http"} 7\nkong_datastore_reachable 1\n') is None
    assert parse_counters("") is None


def test_status_codes_without_latencies() -> None:
    found = parse_counters('kong_http_requests_total{code="500"} 2\n')
    assert found == Counters(requests=2, errors=2)


def test_our_own_probes_are_no_traffic() -> None:
    ours = 'service="",route="konverge-revision"'
    text = f'kong_http_requests_total{{{ours},code="200"}} 8\nkong_request_latency_ms_count{{{ours}}} 8\n'
    assert parse_counters(text) == Counters()
    assert parse_counters(text + TEXT) == parse_counters(TEXT)
