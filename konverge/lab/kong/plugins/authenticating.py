"""key-auth, basic-auth and acl."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlencode

from konverge.lab.kong.plugins.base import Config, Context, Entity, Local, Plugin, owner_of, use_anonymous
from konverge.lab.kong.wire.message import HeaderItems


def challenge(scheme: str, realm: str | None) -> HeaderItems:
    """Return the WWW-Authenticate field."""
    return [("WWW-Authenticate", f'{scheme} realm="{realm}"' if realm else scheme)]


class KeyAuth(Plugin):
    """An API key in a header or in the query."""

    name = "key-auth"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Authenticate."""
        if not config["run_on_preflight"] and context.request.method == "OPTIONS":
            return None
        if config.get("anonymous") and context.credential is not None:
            return None
        key = self._find(context, config)
        message = "Unauthorized"
        if key is None:
            message = "No API key found in request"
        else:
            credential = self._lookup(context, key)
            if credential is not None:
                shown = credential | {"_identifier": credential["id"]}
                context.authenticate(owner_of(context.snapshot, credential), shown)
                return None
        if use_anonymous(context, config):
            return None
        return Local(401, message, challenge("Key", config.get("realm")))

    def _find(self, context: Context, config: Config) -> str | None:
        hide = config["hide_credentials"]
        for name in config["key_names"]:
            if config["key_in_header"]:
                value = context.request.headers.get(name.lower())
                if value:
                    if hide:
                        context.upstream_headers.remove(name)
                    return value
            if config["key_in_query"]:
                pairs = parse_qsl(context.query, keep_blank_values=True)
                found = next((value for key, value in pairs if key == name and value), None)
                if found is not None:
                    if hide:
                        context.query = urlencode([pair for pair in pairs if pair[0] != name])
                    return found
        return None

    def _lookup(self, context: Context, key: str) -> Entity | None:
        index = context.counters.index(context.snapshot, "keyauth_credentials", "key")
        return index.get(key)


class BasicAuth(Plugin):
    """User name and password."""

    name = "basic-auth"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Authenticate."""
        if config.get("anonymous") and context.credential is not None:
            return None
        given = context.request.headers.get("authorization") or context.request.headers.get("proxy-authorization")
        credential = self._check(context, given)
        if credential is not None:
            if config["hide_credentials"]:
                context.upstream_headers.remove("authorization")
            shown = credential | {"_identifier": credential["username"]}
            context.authenticate(owner_of(context.snapshot, credential), shown)
            return None
        if use_anonymous(context, config):
            return None
        return Local(401, "Unauthorized", challenge("Basic", config.get("realm")))

    def _check(self, context: Context, given: str | None) -> Entity | None:
        scheme, _, encoded = (given or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            username, _, password = base64.b64decode(encoded.strip()).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        index = context.counters.index(context.snapshot, "basicauth_credentials", "username")
        credential = index.get(username)
        if credential is None:
            return None
        salted = password + str((credential.get("consumer") or {}).get("id", ""))
        # Kong's own scheme (kong/plugins/basic-auth/crypto.lua).
        digest = hashlib.sha1(salted.encode()).hexdigest()  # noqa: S324
        return credential if credential["password"] in (digest, password) else None


class Acl(Plugin):
    """Groups of consumers."""

    name = "acl"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Let pass or refuse."""
        groups = self._groups(context, config)
        if groups is None:
            return Local(401, "Unauthorized")
        allow, deny = config.get("allow"), config.get("deny")
        if (deny and groups & set(deny)) or (allow and not groups & set(allow)):
            return Local(403, "You cannot consume this service")
        if not config["hide_groups_header"] and groups:
            name = "X-Consumer-Groups" if context.consumer is not None else "X-Authenticated-Groups"
            context.upstream_headers.set(name, ", ".join(sorted(groups)))
        return None

    def _groups(self, context: Context, config: Config) -> set[str] | None:
        if context.groups and (config["always_use_authenticated_groups"] or context.consumer is None):
            return set(context.groups)
        if context.consumer is None:
            return None
        consumer_id = context.consumer["id"]
        acls: list[dict[str, Any]] = list(context.snapshot.entities.get("acls", {}).values())
        return {acl["group"] for acl in acls if (acl.get("consumer") or {}).get("id") == consumer_id}
