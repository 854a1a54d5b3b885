"""KongVault to vaults, KongLicense to the license."""

from __future__ import annotations

from konverge.translate.classes import selects
from konverge.translate.drafts import Entity
from konverge.translate.entities import Entry, drop_empty
from konverge.translate.objects import created, name_of, tag
from konverge.translate.problems import Object
from konverge.translate.store import Scope

VAULT = "KongVault"
LICENSE = "KongLicense"


def translate_vaults(scope: Scope) -> list[Entry]:
    """Return the vaults of our class; of equal prefixes the oldest object stays."""
    ours = [value for _, value in scope.find("all", VAULT) if selects(scope, value)]
    ours.sort(key=lambda value: (created(value), name_of(value)))
    entries: dict[str, Entry] = {}
    for value in ours:
        spec = value.get("spec") or {}
        prefix = spec.get("prefix") or ""
        if prefix in entries:
            message = f"The prefix {prefix!r} belongs to an older KongVault: this one is left out."
            scope.report(VAULT, value, "VaultPrefixDuplicate", message)
            continue
        entry = _translate_vault(value, prefix, scope)
        if entry is not None:
            entries[prefix] = entry
    return list(entries.values())


def _translate_vault(value: Object, prefix: str, scope: Scope) -> Entry | None:
    spec = value.get("spec") or {}
    config = spec.get("config")
    if config is not None and not isinstance(config, dict):
        scope.report(VAULT, value, "VaultInvalid", "The field spec.config must be an object: it is left out.")
        return None
    entity: Entity = {
        "name": spec.get("backend") or "",
        "prefix": prefix,
        "description": spec.get("description") or None,
        "config": config,
        "tags": tag(VAULT, value),
        "id": scope.ids.vault(prefix),
    }
    return Entry((prefix,), drop_empty(entity))


def translate_licenses(scope: Scope) -> list[Entry]:
    """Return the newest enabled license, in the enterprise edition only."""
    if not (scope.settings.enterprise or scope.settings.on("EnterpriseEdition")):
        return []
    enabled = [value for _, value in scope.find("all", LICENSE) if value.get("enabled") is not False]
    if not enabled:
        return []
    enabled.sort(key=name_of)
    newest = max(enabled, key=created)
    payload = newest.get("rawLicenseString") or ""
    entity = {"id": scope.ids.license(f"{LICENSE}:{name_of(newest)}"), "payload": payload}
    return [Entry((payload,), entity)]
