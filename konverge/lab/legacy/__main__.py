"""``python -m konverge.lab.legacy > all.yaml`` prints the definitions, a release and the sample applications."""

from __future__ import annotations

import argparse
import sys

from konverge.kube.resources import Object
from konverge.lab.legacy import dump, kong_crds, legacy_release, sample_applications

PARTS = ("crds", "release", "sample")


def main(arguments: list[str] | None = None) -> int:
    """Print the chosen parts as one YAML stream."""
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.legacy", description=__doc__)
    parser.add_argument("--release", default="legacy", help="name of the Helm release")
    parser.add_argument("--namespace", default="kong", help="namespace of the release")
    parser.add_argument("--sample-namespace", default="sample", help="namespace of the sample applications")
    parser.add_argument("--replicas", type=int, default=3, help="proxy pods of the release")
    parser.add_argument("--only", choices=PARTS, action="append", help="print only this part; may be repeated")
    options = parser.parse_args(arguments)
    sys.stdout.write(dump(collect_objects(options)))
    return 0


def collect_objects(options: argparse.Namespace) -> list[Object]:
    """Return the namespaces and the objects of the chosen parts, in an order in which they can be created."""
    chosen = options.only or PARTS
    objects: list[Object] = []
    if "crds" in chosen:
        objects += kong_crds()
    if "release" in chosen:
        objects += [_namespace(options.namespace)]
        objects += legacy_release(options.release, options.namespace, options.replicas)
    if "sample" in chosen:
        objects += [_namespace(options.sample_namespace)]
        objects += sample_applications(options.sample_namespace)
    return objects


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


if __name__ == "__main__":
    sys.exit(main())
