"""The switches of a translation, named as the ingress controller names its feature gates.

The defaults are those of a controller that knows nothing about its cluster: ingress class ``kong``, no Gateway
API controller name, Kong 3.9.1. :func:`for_cluster` gives the defaults of a running installation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Schema = Mapping[str, Any]
"""What ``GET /schemas/plugins/NAME`` (or ``/schemas/TYPE``) of the gateway answers."""

FEATURES: Mapping[str, bool] = {
    "FillIDs": True,
    "KongCustomEntity": True,
    "KongServiceFacade": False,
    "RewriteURIs": False,
    "ExpressionRoutes": False,
    "FallbackConfiguration": False,
    "EnterpriseEdition": False,
    "SupportRedirectPlugin": False,
    "CombinedServicesFromDifferentHTTPRoutes": False,
    "DrainSupport": False,
}
"""Every feature that changes a document, with its default."""

WITHOUT_EFFECT = frozenset(
    {"GatewayAlpha", "SanitizeKonnectConfigDumps", "ReportConfiguredKubernetesObjects", "KonnectDisabled"}
)
"""Gates of the ingress controller that exist and change nothing in a document."""

LIVE_GATEWAY_CONTROLLER = "konghq.com/kic-gateway-controller"
REDIRECT_PLUGIN_SINCE = (3, 9, 0)
STICKY_SESSIONS_SINCE = (3, 11, 0)


def parse_version(text: str) -> tuple[int, int, int]:
    """Return (major, minor, patch) of a Kong version; what is missing or odd counts as 0."""
    numbers = [int(number) for number in re.findall(r"\d{1,6}", text)[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


@dataclass(frozen=True, slots=True)
class Settings:
    """How to translate. Two translations with equal settings and equal objects give equal bytes."""

    ingress_class: str = "kong"
    features: Mapping[str, bool] = field(default_factory=dict)
    """Laid over :data:`FEATURES`."""
    kong_version: str = "3.9.1"
    cluster_domain: str = ""
    gateway_controller: str = ""
    """The ``controllerName`` of the GatewayClasses whose listeners' certificates are taken."""
    workspace: str = ""
    enterprise: bool = False
    """The same as the feature ``EnterpriseEdition``: licenses are part of the document."""
    plugin_schemas: Mapping[str, Schema] | None = None
    """Plugin name -> schema. Where a schema is known, the plugin's configuration is filled with its defaults."""
    entity_schemas: Mapping[str, Schema] | None = None
    """Custom entity type -> schema; :data:`konverge.translate.custom_entities.DEFAULT_SCHEMAS` where None."""
    now: datetime | None = None
    """The moment at which CA certificates must not be expired; None skips that check."""

    def on(self, feature: str) -> bool:
        """Tell whether a feature is on."""
        return self.features.get(feature, FEATURES[feature])

    @property
    def version(self) -> tuple[int, int, int]:
        """The Kong version as numbers."""
        return parse_version(self.kong_version)


def for_cluster(
    *, ingress_class: str = "kong", features: Mapping[str, bool] | None = None, kong_version: str = "3.9.1"
) -> Settings:
    """Return the settings of a running installation: Gateway API on, the redirect plugin from Kong 3.9 on."""
    redirect = parse_version(kong_version) >= REDIRECT_PLUGIN_SINCE
    return Settings(
        ingress_class=ingress_class,
        features={"SupportRedirectPlugin": redirect, **(features or {})},
        kong_version=kong_version,
        gateway_controller=LIVE_GATEWAY_CONTROLLER,
    )
