"""The entities that authentication plugins bring along: credentials of consumers, tokens, sessions."""

from __future__ import annotations

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import conditional, must_be_given
from konverge.lab.kong.schema.fields import EntitySchema, Field, array, boolean, foreign, integer, string

ALGORITHMS = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
    "EdDSA",
)  # fmt: skip


def _credential(fields: dict[str, Field]) -> dict[str, Field]:
    return {
        "id": t.identity(),
        "created_at": t.timestamp(),
        "consumer": foreign("consumers", required=True),
        **fields,
        "tags": t.tags(),
    }


KEY_AUTH = EntitySchema(
    "keyauth_credentials",
    _credential({"key": string(auto="random", unique=True, secret=True)}),
    endpoint_key="key",
    cache_key=("key",),
    admin_name="key-auths",
    nested_name="key-auth",
)
BASIC_AUTH = EntitySchema(
    "basicauth_credentials",
    _credential({"username": string(required=True, unique=True), "password": string(required=True, secret=True)}),
    endpoint_key="username",
    cache_key=("username",),
    admin_name="basic-auths",
    nested_name="basic-auth",
)
HMAC_AUTH = EntitySchema(
    "hmacauth_credentials",
    _credential({"username": string(required=True, unique=True), "secret": string(auto="random", secret=True)}),
    endpoint_key="username",
    cache_key=("username",),
    admin_name="hmac-auths",
    nested_name="hmac-auth",
)
JWT = EntitySchema(
    "jwt_secrets",
    _credential(
        {
            "key": string(auto="random", unique=True),
            "secret": string(auto="random", secret=True),
            "rsa_public_key": string(),
            "algorithm": string(default="HS256", one_of=ALGORITHMS),
        }
    ),
    endpoint_key="key",
    cache_key=("key",),
    admin_name="jwts",
    nested_name="jwt",
    checks=[
        conditional(
            "algorithm",
            lambda value: value is not None and not value.startswith("HS"),
            "rsa_public_key",
            must_be_given,
        )
    ],
)
ACLS = EntitySchema(
    "acls", _credential({"group": string(required=True)}), endpoint_key="group", cache_key=("consumer", "group")
)
OAUTH2 = EntitySchema(
    "oauth2_credentials",
    _credential(
        {
            "name": string(required=True),
            "client_id": string(auto="random", unique=True),
            "client_secret": string(auto="random", secret=True),
            "hash_secret": boolean(required=True, default=False),
            "redirect_uris": array(t.url()),
            "client_type": string(required=True, default="confidential", one_of=("confidential", "public")),
        }
    ),
    endpoint_key="client_id",
    cache_key=("client_id",),
    admin_name="oauth2",
)
OAUTH2_TOKENS = EntitySchema(
    "oauth2_tokens",
    {
        "id": t.identity(),
        "created_at": t.timestamp(),
        "credential": foreign("oauth2_credentials", required=True),
        "service": foreign("services"),
        "token_type": string(required=True, default="bearer", one_of=("bearer",)),
        "expires_in": integer(required=True),
        "access_token": string(auto="random", unique=True, secret=True),
        "refresh_token": string(unique=True, secret=True),
        "authenticated_userid": string(),
        "scope": string(),
    },
    endpoint_key="access_token",
    cache_key=("access_token",),
)
SESSIONS = EntitySchema(
    "sessions",
    {
        "id": t.identity(),
        "created_at": t.timestamp(),
        "session_id": string(required=True, unique=True),
        "expires": integer(),
        "data": string(),
    },
    endpoint_key="session_id",
)
ACME_STORAGE = EntitySchema(
    "acme_storage",
    {
        "id": t.identity(),
        "created_at": t.timestamp(),
        "key": string(required=True, unique=True),
        "value": string(required=True),
    },
    endpoint_key="key",
    cache_key=("key",),
)

CREDENTIALS = (
    KEY_AUTH, BASIC_AUTH, HMAC_AUTH, JWT, ACLS, OAUTH2, OAUTH2_TOKENS, SESSIONS, ACME_STORAGE,
)  # fmt: skip
