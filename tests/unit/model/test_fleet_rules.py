"""The rules of a ProxyFleet in the models, and what a person is told of fields that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest
from fleet_examples import ACCEPTED, BOUNDED, REFUSED, complete

from konverge.errors import Invalid
from konverge.kube.crds import build_crds
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.rules import Rule, Ruled
from konverge.operate.fleets import parse_fleet
from konverge.operate.validating import find_faults, suggest, validate_spec


def body_of(spec: dict[str, Any], name: str = "shop") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": spec}


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_a_sound_fleet_is_accepted(spec: dict[str, Any]) -> None:
    assert find_faults(body_of(complete(spec))) == []
    assert parse_fleet(body_of(complete(spec))).name == "shop"


@pytest.mark.parametrize(("spec", "field", "part"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_fleet_is_told_what_to_write(spec: dict[str, Any], field: str, part: str) -> None:
    (finding,) = find_faults(body_of(complete(spec)))
    assert finding.field == field
    assert part in finding.message
    with pytest.raises(Invalid) as caught:
        parse_fleet(body_of(complete(spec)))
    assert f"ProxyFleet ns/shop: {field}: " in caught.value.message


@pytest.mark.parametrize(("spec", "field"), BOUNDED.values(), ids=BOUNDED)
def test_bounds_name_their_field(spec: dict[str, Any], field: str) -> None:
    assert [finding.field for finding in find_faults(body_of(complete(spec)))] == [field]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"proxyServce": "x"}, "spec.proxyServce: unknown field; did you mean proxyService?"),
        ({"rollout": {"wavesize": 3}}, "spec.rollout.wavesize: unknown field; did you mean waveSize?"),
        (
            {"rollout": {"analysis": {"enable": True}}},
            "spec.rollout.analysis.enable: unknown field; did you mean enabled?",
        ),
        (
            {"identity": {"windows": [{"timezone": "UTC", "begin": "x", "starts": "01:00"}]}},
            "spec.identity.windows[0].starts: unknown field; did you mean start?",
        ),
        (
            {"identity": {"issuer": {"qqq": 1}}},
            "spec.identity.issuer.qqq: unknown field; known here: issuerKind, kind, name",
        ),
        (
            {"features": {"RewriteURI": True}},
            "spec.features.RewriteURI: unknown feature gate; did you mean RewriteURIs?",
        ),
        ({"identity": {"windows": [{"timezone": "Europe/Berlinn"}]}}, "no zone 'Europe/Berlinn'"),
    ],
)
def test_what_nobody_knows_is_told_with_what_may_be_meant(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(Invalid) as caught:
        validate_spec(body_of(complete(spec)), "fleet.yaml")
    assert caught.value.message.startswith("fleet.yaml: ")
    assert told in caught.value.message


def test_everything_wrong_is_told_at_once() -> None:
    spec = {"proxyService": "s", "replicas": -1, "typo": 1, "rollout": {"canary": 9, "waveSize": 2}}
    assert {finding.field for finding in find_faults(body_of(spec))} == {
        "spec.replicas",
        "spec.typo",
        "spec.rollout.canary",
    }


@pytest.mark.parametrize("spec", [None, [], "text"])
def test_a_fleet_without_a_spec_is_told(spec: Any) -> None:
    assert "spec.proxyService" in str(find_faults({"metadata": {"name": "x"}, "spec": spec})[0])


def test_a_long_name_is_told() -> None:
    (finding,) = find_faults(body_of(complete({}), "n" * 51))
    assert finding.field == "metadata.name"


def test_the_mode_of_a_living_fleet_stays() -> None:
    old, new = body_of(complete({})), body_of(complete({"mode": "db"}))
    (finding,) = find_faults(new, old)
    assert finding.field == "spec.mode"
    assert find_faults(new, new) == find_faults(new) == []
    assert find_faults(new, body_of({"proxyService": "NOT VALID"})) == [], "what is invalid itself forbids nothing"


def test_a_suggestion_is_near_or_everything() -> None:
    assert suggest("colour", ["color", "size"]) == "did you mean color?"
    assert suggest("x", ["color", "size"]) == "known here: color, size"


def ruled(kind: type[Ruled] = Ruled) -> list[type[Ruled]]:
    return [found for sub in kind.__subclasses__() for found in (sub, *ruled(sub))]


def rules_in(node: Any) -> list[dict[str, str]]:
    if isinstance(node, list):
        return [rule for item in node for rule in rules_in(item)]
    if not isinstance(node, dict):
        return []
    own = node.get("x-kubernetes-validations") or []
    return own + [rule for value in node.values() for rule in rules_in(value)]


@pytest.mark.parametrize(
    "rule", [r for kind in ruled() for r in (*kind.RULES, *kind.TRANSITIONS)], ids=lambda rule: rule.field
)
def test_every_rule_is_in_the_definition(rule: Rule) -> None:
    told = [found["message"] for found in rules_in(build_crds())]
    assert rule.message in told
    assert "write " in rule.message or "make " in rule.message, "it says what to do instead"


def test_a_value_that_breaks_a_rule_cannot_be_made() -> None:
    fleet = Fleet(name="shop", namespace="ns", spec=FleetSpec(proxy_service="s"))
    with pytest.raises(ValueError, match="at most waveSize"):
        fleet.spec.rollout.replace(canary=60)
