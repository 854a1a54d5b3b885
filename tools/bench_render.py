"""Times the translator against orjson parsing and dumping the same documents, in the same run.

Times are CPU time of this process, so that other work on the machine disturbs little.

Usage: ``python tools/bench_render.py [--sizes 1000,10000,50000] [--repeat N]``. Every route is an Ingress with a
Service, an EndpointSlice with two endpoints and, for every second one, a plugin of its own; all routes of a
namespace share one more plugin. Prints a table and writes ``build/bench-render.json``.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from typing import Any

import orjson
from reporting import write_report

from konverge.translate import Settings, Translator, render

GOAL_FULL = 15.0
GOAL_CHANGE = 0.03
TEAMS = 40


def make_objects(routes: int) -> list[dict[str, Any]]:
    """Return the objects of a cluster, as an API server would list them."""
    objects: list[dict[str, Any]] = [_class()]
    for team in range(TEAMS):
        shared = _plugin("shared", "cors", {"origins": ["https://example.com"]})
        shared["metadata"]["namespace"] = f"team-{team}"
        objects.append(shared)
    for number in range(routes):
        objects += [_service(number), _slice(number), _ingress(number)]
        if number % 2 == 0:
            config = {"minute": 100 + number % 50, "policy": "local", "limit_by": "ip"}
            objects.append(_plugin(f"limit-{number}", "rate-limiting", config))
    return objects


def _meta(kind: str, name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": f"team-{number % TEAMS}",
        "uid": f"{abs(hash(kind)) % 10**8:08d}-0000-4000-8000-{number:012d}",
        "resourceVersion": str(1000 + number),
        "generation": 1,
        "creationTimestamp": f"2024-01-{1 + number % 28:02d}T00:00:{number % 60:02d}Z",
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"},
        **more,
    }


def _class() -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "kong"},
        "spec": {"controller": "ingress-controllers.konghq.com/kong"},
    }


def _service(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("Service", f"service-{number}", number),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            "selector": {"app.kubernetes.io/name": f"service-{number}"},
        },
    }


def _slice(number: int) -> dict[str, Any]:
    ready = {"ready": True, "serving": True, "terminating": False}
    meta = _meta("EndpointSlice", f"service-{number}-abcde", number)
    meta["labels"] = {"kubernetes.io/service-name": f"service-{number}"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{100 + copy}.{number // 256 % 256}.{number % 256}"],
                "conditions": ready,
                "nodeName": f"node-{number % 20}",
                "targetRef": {"kind": "Pod", "name": f"pod-{number}-{copy}", "namespace": f"team-{number % TEAMS}"},
            }
            for copy in range(2)
        ],
    }


def _ingress(number: int, path: str = "/api") -> dict[str, Any]:
    plugins = f"shared,limit-{number}" if number % 2 == 0 else "shared"
    backend = {"service": {"name": f"service-{number}", "port": {"number": 80}}}
    annotations = {"konghq.com/plugins": plugins, "konghq.com/strip-path": "true"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _meta("Ingress", f"route-{number}", number, annotations=annotations),
        "spec": {
            "ingressClassName": "kong",
            "rules": [
                {
                    "host": f"shop-{number}.example.com",
                    "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]},
                }
            ],
        },
    }


def _plugin(name: str, plugin: str, config: dict[str, Any]) -> dict[str, Any]:
    number = int(name.rpartition("-")[2]) if "-" in name else 0
    return {
        "apiVersion": "configuration.konghq.com/v1",
        "kind": "KongPlugin",
        "metadata": _meta("KongPlugin", name, number),
        "plugin": plugin,
        "config": config,
    }


def best(action: Any, repeat: int) -> float:
    """Return the shortest of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        gc.collect()
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def measure(routes: int, repeat: int) -> dict[str, float]:
    """Return the times and the memory of one size."""
    raw = [orjson.dumps(value) for value in make_objects(routes)]
    base = best(lambda: [orjson.dumps(orjson.loads(text)) for text in raw], repeat)
    objects = [orjson.loads(text) for text in raw]

    def full() -> None:
        rendered = render(objects, Settings())
        assert rendered.content
        assert rendered.hash

    full_time = best(full, repeat)
    change_time, hash_time = measure_change(objects, routes, max(repeat, 7))
    return {
        "routes": routes,
        "input_mib": sum(map(len, raw)) / 2**20,
        "base_s": base,
        "full_s": full_time,
        "full_ratio": full_time / base,
        "change_s": change_time,
        "change_share": change_time / full_time,
        "change_hash_s": hash_time,
        "change_with_hash_share": (change_time + hash_time) / full_time,
        "peak_mib": peak(raw),
        "base_peak_mib": base_peak(raw),
    }


def measure_change(objects: list[dict[str, Any]], routes: int, repeat: int) -> tuple[float, float]:
    """Return the median times of a change of one Ingress up to the new bytes, and of their hash."""
    translator = Translator(Settings())
    translator.replace(objects)
    assert translator.render().content
    changes, hashes = [], []
    for turn in range(repeat):
        gc.collect()
        value = _ingress((turn * 7919) % routes, f"/changed-{turn}")
        start = time.process_time()
        translator.apply("MODIFIED", value)
        rendered = translator.render()
        assert rendered.content
        middle = time.process_time()
        assert rendered.hash
        changes.append(middle - start)
        hashes.append(time.process_time() - middle)
    return sorted(changes)[repeat // 2], sorted(hashes)[repeat // 2]


def peak(raw: list[bytes]) -> float:
    """Return the peak memory of parsing and a full render, in MiB."""
    tracemalloc.start()
    rendered = render([orjson.loads(text) for text in raw], Settings())
    assert rendered.content
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def base_peak(raw: list[bytes]) -> float:
    """Return the peak memory of parsing and dumping the same documents, in MiB."""
    tracemalloc.start()
    objects = [orjson.loads(text) for text in raw]
    dumped = [orjson.dumps(value) for value in objects]
    assert dumped
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def show(rows: list[dict[str, float]]) -> bool:
    """Print the table; returns whether the goals are met."""
    print(f"{'routes':>7} {'orjson s':>9} {'full s':>8} {'ratio':>6} {'change ms':>10} {'share':>7} "
          f"{'+hash':>7} {'peak MiB':>9} {'(orjson)':>9}")  # fmt: skip
    for row in rows:
        print(
            f"{row['routes']:7.0f} {row['base_s']:9.4f} {row['full_s']:8.3f} {row['full_ratio']:6.1f} "
            f"{row['change_s'] * 1000:10.2f} {row['change_share']:7.2%} {row['change_with_hash_share']:7.2%} "
            f"{row['peak_mib']:9.1f} {row['base_peak_mib']:9.1f}"
        )
    good = all(row["full_ratio"] <= GOAL_FULL for row in rows)
    good &= all(row["change_share"] <= GOAL_CHANGE for row in rows if row["routes"] >= 10_000)
    verdict = "met" if good else "MISSED"
    print(f"goals (full <= {GOAL_FULL:.0f} x orjson, change at 10,000 <= {GOAL_CHANGE:.0%}): {verdict}")
    return good


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,50000")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", default="build/bench-render.json")
    options = parser.parse_args()
    rows = [measure(int(size), options.repeat) for size in options.sizes.split(",")]
    good = show(rows)
    write_report(options.output, {"python": sys.version.split()[0], "met": good, "rows": rows})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
