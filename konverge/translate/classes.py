"""Which objects are ours: ingress classes, and the parameters of our class."""

from __future__ import annotations

from dataclasses import dataclass

from konverge.translate.kinds import KONG
from konverge.translate.objects import annotations_of
from konverge.translate.problems import Object
from konverge.translate.store import Scope

CLASS = "kubernetes.io/ingress.class"
IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the IngressClassParameters of our class say."""

    service_upstream: bool = False
    legacy_regex: bool = False


NO_PARAMETERS = Parameters()


def is_default(scope: Scope) -> bool:
    """Tell whether our class takes objects that name no class."""
    found = scope.get("IngressClass", "", scope.settings.ingress_class)
    return found is not None and annotations_of(found).get(IS_DEFAULT) == "true"


def selects_ingress(scope: Scope, ingress: Object) -> bool:
    """Tell whether an Ingress is ours: the annotation counts before the field, the default class last."""
    named = annotations_of(ingress).get(CLASS)
    if not named:
        named = (ingress.get("spec") or {}).get("ingressClassName")
        if named is None:
            return is_default(scope)
    return bool(named == scope.settings.ingress_class)


def selects(scope: Scope, value: Object) -> bool:
    """Tell whether a Kong object is ours by its class annotation."""
    return selects_name(scope, annotations_of(value).get(CLASS))


def selects_name(scope: Scope, named: str | None) -> bool:
    """Tell whether a class name, possibly absent, means our class."""
    if named:
        return named == scope.settings.ingress_class
    return is_default(scope)


def parameters(scope: Scope) -> Parameters:
    """Return the parameters of our class; the defaults where anything about them is incomplete."""
    found = scope.get("IngressClass", "", scope.settings.ingress_class)
    reference = ((found or {}).get("spec") or {}).get("parameters") or {}
    namespace: str = reference.get("namespace") or ""
    name: str = reference.get("name") or ""
    complete = reference.get("scope") and namespace and name
    ours = reference.get("apiGroup") == KONG and reference.get("kind") == "IngressClassParameters"
    if not (complete and ours):
        return NO_PARAMETERS
    spec = (scope.get("IngressClassParameters", namespace, name) or {}).get("spec") or {}
    return Parameters(bool(spec.get("serviceUpstream")), bool(spec.get("enableLegacyRegexDetection")))
