"""Write ``wire.json``: protobuf field numbers of the built-in types, from their published declarations.

    python -m konverge.lab.apiserver.schemas.numbers K8S_IO_API_DIR APIMACHINERY_DIR wire.json

kubectl and helm send some objects as protobuf only. The tags of the types say number and name of a field; an
entry is the JSON name, with a ``~TYPE`` for a field whose parts lie in the parent's JSON, and a ``?`` behind the
name where a zero means "not set".
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(
    r"^\s*(?:(?P<name>\w+)\s+)?(?P<type>[*\[\]\w.]+)\s+`json:\"(?P<json>[^\"]*)\"[^`]*protobuf:\"(?P<wire>[^\"]*)\"",
    re.MULTILINE,
)


def read_types(source: str, prefix: str) -> dict[str, dict[str, str]]:
    """Return the fields by number of every type of one package."""
    return {f"{prefix}.{name}": _read_fields(body, prefix) for name, body in STRUCT.findall(source)}


def _read_fields(body: str, prefix: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for match in FIELD.finditer(body):
        number = match["wire"].split(",")[1]
        name, _, options = match["json"].partition(",")
        if "inline" in options and not name:
            fields[number] = "~" + _qualify(match["type"].lstrip("*"), prefix)
        else:
            zero_unset = not match["type"].startswith(("*", "[", "map"))
            fields[number] = name + ("?" if zero_unset else "")
    return fields


def _qualify(name: str, prefix: str) -> str:
    package, _, bare = name.rpartition(".")
    known = {"v1": "core.v1", "metav1": "meta.v1", "corev1": "core.v1"}
    return f"{known.get(package, package)}.{bare}" if package else f"{prefix}.{bare}"


def main(arguments: list[str]) -> None:
    """Read the packages that are served and write the table."""
    api, machinery, target = (Path(argument) for argument in arguments)
    served = json.loads(Path(__file__).with_name("builtin.json").read_text("utf-8"))["types"]
    table = read_types((machinery / "pkg/apis/meta/v1/types.go").read_text("utf-8"), "meta.v1")
    for file in sorted(api.glob("*/*/types.go")):
        prefix = f"{file.parent.parent.name}.{file.parent.name}"
        if any(name.startswith(prefix + ".") for name in served):
            table |= read_types(file.read_text("utf-8"), prefix)
    table |= {"authentication.v1.ExtraValue": {}, "authorization.v1.ExtraValue": {}}
    kept = {name: fields for name, fields in table.items() if fields and (name in served or _is_inlined(name, table))}
    target.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")


def _is_inlined(name: str, table: dict[str, dict[str, str]]) -> bool:
    return any("~" + name in fields.values() for fields in table.values())


if __name__ == "__main__":
    main(sys.argv[1:])
