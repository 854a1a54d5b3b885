"""Reads and writes FleetMigration objects: the journal from which a killed migration goes on."""

from __future__ import annotations

from collections.abc import Callable

from konverge.errors import Conflict
from konverge.kube.client import KubeClient
from konverge.kube.resources import FLEET_MIGRATIONS, Object
from konverge.model.migration import Migration, MigrationSpec, MigrationStatus
from konverge.operate.fleets import WRITE_ATTEMPTS


def parse_migration(body: Object) -> Migration:
    """Turn a FleetMigration object into a value."""
    metadata = body["metadata"]
    return Migration(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
        spec=MigrationSpec.model_validate(body["spec"]),
        status=MigrationStatus.model_validate(body.get("status", {})),
    )


async def apply_migration(kube: KubeClient, name: str, namespace: str, spec: MigrationSpec) -> Migration:
    """Create the migration, or set the fields of its spec; its journal stays."""
    body = {
        "apiVersion": FLEET_MIGRATIONS.api_version,
        "kind": FLEET_MIGRATIONS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec.to_json(),
    }
    return parse_migration(await kube.apply(FLEET_MIGRATIONS, body))


async def load_migration(kube: KubeClient, name: str, namespace: str) -> Migration:
    """Read a migration."""
    return parse_migration(await kube.get(FLEET_MIGRATIONS, name, namespace))


async def find_migration(kube: KubeClient, name: str, namespace: str) -> Migration | None:
    """Read a migration, or None."""
    body = await kube.find(FLEET_MIGRATIONS, name, namespace)
    return parse_migration(body) if body else None


async def update_migration_status(
    kube: KubeClient, migration: Migration, change: Callable[[MigrationStatus], MigrationStatus]
) -> Migration:
    """Apply a change to the newest status and return the migration as it is now."""
    for attempt in range(WRITE_ATTEMPTS):
        body = await kube.get(FLEET_MIGRATIONS, migration.name, migration.namespace)
        before = MigrationStatus.model_validate(body.get("status", {}))
        after = change(before)
        if after == before:
            return parse_migration(body)
        try:
            return parse_migration(
                await kube.replace(FLEET_MIGRATIONS, {**body, "status": after.to_json()}, "status")
            )
        except Conflict:
            if attempt == WRITE_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
