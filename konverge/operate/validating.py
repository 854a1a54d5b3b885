"""Says what is wrong with a ProxyFleet, and what to write instead: every finding, not the first one only.

The models and the CustomResourceDefinition hold the same rules; here is what only we can tell: fields that nobody
knows (the API server drops them silently where a client does not ask it to be strict), feature gates, time zones,
and what the cluster has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError

from konverge.errors import Invalid
from konverge.model.fleet import FLEET_NAME, FleetSpec
from konverge.model.rules import check_transition, explain_errors
from konverge.translate.settings import FEATURES

Object = Mapping[str, Any]


class Finding(NamedTuple):
    """One thing that is wrong: where, and what to write instead."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def validate_spec(body: Object, what: str) -> FleetSpec:
    """Return the spec of a ProxyFleet as written by a person; Invalid lists everything that is wrong with it."""
    findings = find_faults(body)
    if findings:
        raise Invalid(
            f"{what}: " + "; ".join(str(finding) for finding in findings),
            reason="InvalidFleet",
            hint="reference/errors.md#invalid-fleet",
        )
    return FleetSpec.model_validate(body.get("spec") or {})


def find_faults(body: Object, old: Object | None = None) -> list[Finding]:
    """Return what is wrong with a ProxyFleet, also against the one that it replaces."""
    raw = body.get("spec")
    if not isinstance(raw, Mapping):
        return [Finding("spec", "is missing; write at least spec.proxyService: NAME")]
    findings = _check_name(body) + find_unknown_fields(FleetSpec, raw, "spec")
    try:
        spec = FleetSpec.model_validate(raw)
    except ValidationError as error:
        return findings + [Finding(*found) for found in explain_errors(error)]
    findings += _check_features(spec.features) + _check_zones(spec)
    before = _parse_old(old)
    if before is not None:
        findings += [Finding(f"spec.{field}", message) for field, message in check_transition(before, spec)]
    return findings


def _parse_old(old: Object | None) -> FleetSpec | None:
    """Return the spec that is replaced; one that is invalid itself forbids nothing."""
    try:
        return FleetSpec.model_validate(old.get("spec") or {}) if old else None
    except ValidationError:
        return None


def _check_name(body: Object) -> list[Finding]:
    name = (body.get("metadata") or {}).get("name") or ""
    return [] if FLEET_NAME.holds(name) else [Finding(FLEET_NAME.field, FLEET_NAME.message)]


def find_unknown_fields(model: type[BaseModel], body: Object, path: str) -> list[Finding]:
    """Return the fields of an object that a model does not have, with the one that may be meant."""
    fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    findings: list[Finding] = []
    for key, value in body.items():
        where = f"{path}.{key}"
        if key not in fields:
            findings.append(Finding(where, f"unknown field; {suggest(str(key), fields)}"))
            continue
        nested = _find_model(fields[key])
        if nested is None:
            continue
        if isinstance(value, Mapping):
            findings += find_unknown_fields(nested, value, where)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    findings += find_unknown_fields(nested, item, f"{where}[{index}]")
    return findings


def _find_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _find_model(part))), None)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean X?", or everything that is known where nothing is near."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {names[close[0]]}?"
    return f"known here: {', '.join(sorted(names.values()))}"


def _check_features(features: Mapping[str, bool]) -> list[Finding]:
    return [
        Finding(f"spec.features.{name}", f"unknown feature gate; {suggest(name, FEATURES)}")
        for name in sorted(features)
        if name not in FEATURES
    ]


def _check_zones(spec: FleetSpec) -> list[Finding]:
    if not _is_zone("Europe/Berlin"):
        return []  # this machine has no time zone database to judge by
    return [
        Finding(f"spec.identity.windows[{index}].timezone", f"no zone {window.timezone!r}; write UTC or an IANA name")
        for index, window in enumerate(spec.identity.windows)
        if not _is_zone(window.timezone)
    ]


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
