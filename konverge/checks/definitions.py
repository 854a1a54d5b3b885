"""Checks of the CRDs: ours, Kong's, the Gateway API's."""

from __future__ import annotations

from konverge.checks.registry import Answer, Severity, check, failed, failed_if, passed
from konverge.checks.scene import Object, Scene
from konverge.kube.crds import build_crds
from konverge.kube.resources import SOURCES

CATEGORY = "CRDs"


def _installed(scene: Scene) -> dict[str, Object]:
    return {body["metadata"]["name"]: body for body in scene.list("customresourcedefinitions")}


@check(
    "crds-installed",
    CATEGORY,
    Severity.ERROR,
    "The CRDs of konverge.dev are installed",
    fix="konverge crds | kubectl apply --server-side -f -",
)
def crds_installed(scene: Scene) -> Answer:
    """Every kind of ours is served."""
    installed = _installed(scene)
    missing = (crd["metadata"]["name"] for crd in build_crds() if crd["metadata"]["name"] not in installed)
    return failed_if((f"{name} is missing" for name in missing), f"{len(build_crds())} kinds")


@check(
    "crds-current",
    CATEGORY,
    Severity.WARNING,
    "The CRDs are those of this version",
    fix="A helm upgrade does not touch CRDs: konverge crds | kubectl apply --server-side -f -",
)
def crds_current(scene: Scene) -> Answer:
    """Every field of ours is in the schema that is installed: an unknown field would be dropped without a word."""
    installed = _installed(scene)
    older = [
        f"{name} does not know {', '.join(missing)}"
        for crd in build_crds()
        if (name := crd["metadata"]["name"]) in installed
        and (missing := sorted(_fields(crd) - _fields(installed[name])))
    ]
    return failed_if(older, "every field is known")


def _fields(crd: Object) -> set[str]:
    schema = crd["spec"]["versions"][0].get("schema", {}).get("openAPIV3Schema", {})
    return set(_walk(schema, ""))


def _walk(schema: Object, path: str) -> list[str]:
    found: list[str] = []
    for name, field in (schema.get("properties") or {}).items():
        inner = f"{path}.{name}" if path else name
        found += [inner, *_walk(field, inner)]
    return found


@check(
    "crds-established",
    CATEGORY,
    Severity.ERROR,
    "The API server has accepted the CRDs of konverge.dev",
    fix="kubectl describe crd NAME shows why; two CRDs may fight for one name.",
)
def crds_established(scene: Scene) -> Answer:
    """Condition Established is True on each of ours."""
    ours = [body for name, body in _installed(scene).items() if name.endswith(".konverge.dev")]
    waiting = [
        f"{body['metadata']['name']} is not established"
        for body in ours
        if not any(
            condition["type"] == "Established" and condition["status"] == "True"
            for condition in body.get("status", {}).get("conditions", ())
        )
    ]
    return failed_if(waiting, f"{len(ours)} established")


@check(
    "crds-kong",
    CATEGORY,
    Severity.INFO,
    "Kong's CRDs are installed",
    fix="Without them Ingresses still work; plugins, consumers and policies need the CRDs of Kong's chart.",
)
def crds_kong(scene: Scene) -> Answer:
    """The kinds of configuration.konghq.com that a configuration is rendered from are served in our version."""
    return _served(scene, "configuration.konghq.com")


@check(
    "crds-gateway",
    CATEGORY,
    Severity.INFO,
    "The Gateway API is installed in the versions that are read",
    fix="Install the Gateway API's CRDs to use HTTPRoute and its like; kinds in another version are not read.",
)
def crds_gateway(scene: Scene) -> Answer:
    """The kinds of gateway.networking.k8s.io are served in the versions that are listed."""
    return _served(scene, "gateway.networking.k8s.io")


def _served(scene: Scene, group: str) -> Answer:
    kinds = scene.kinds.get()
    wanted = [r for r in SOURCES if r.group == group]
    missing = [r.kind for r in wanted if f"{r.plural}.{r.group}/{r.version}" not in kinds]
    if len(missing) == len(wanted):
        return failed(f"nothing of {group} is served")
    return failed(f"not served: {', '.join(missing)}") if missing else passed(f"{len(wanted)} kinds")
