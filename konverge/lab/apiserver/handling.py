"""From an HTTP request to a response: who asks, may they, what do they want, how did it end."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from konverge.lab.apiserver.audit import Audit
from konverge.lab.apiserver.authentication import Authenticator
from konverge.lab.apiserver.authorizing import Authorizer, read_impersonated
from konverge.lab.apiserver.control import serve_control
from konverge.lab.apiserver.faults import Dropped
from konverge.lab.apiserver.proxying import proxy_log, proxy_stream
from konverge.lab.apiserver.publicpaths import Answer, PublicPaths
from konverge.lab.apiserver.reading import read_list, read_object
from konverge.lab.apiserver.removing import delete_collection, delete_object
from konverge.lab.apiserver.representing import encode_entry, encode_list, negotiate
from konverge.lab.apiserver.requests import Request, parse_request
from konverge.lab.apiserver.reviews import RESOURCES as REVIEWS
from konverge.lab.apiserver.reviews import answer_review
from konverge.lab.apiserver.state import MAX_BODY, State
from konverge.lab.apiserver.statuses import (
    StatusError,
    internal,
    method_not_allowed,
    no_such_resource,
    not_found,
    too_large,
)
from konverge.lab.apiserver.store import Entry
from konverge.lab.apiserver.subresources import bind_pod, evict_pod, issue_token, serve_scale
from konverge.lab.apiserver.watching import stream_watch
from konverge.lab.apiserver.writing import check_method, create_object, patch_object_at, update_object

log = logging.getLogger(__name__)

STREAMS = frozenset({"exec", "attach", "portforward"})
JSON = "application/json"
CONTROL = "/lab/"


class Handler:
    """Serves every request of one server."""

    def __init__(
        self,
        state: State,
        authenticator: Authenticator,
        authorizer: Authorizer,
        paths: PublicPaths,
        audit: Audit,
        kubelet: ssl.SSLContext,
    ) -> None:
        self._state = state
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._paths = paths
        self._audit = audit
        self._kubelet = kubelet

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Serve one request; nothing escapes but cancellation and the loss of the client."""
        request = parse_request(raw.method, raw.path, raw.query, raw.headers, self._state.registry)
        try:
            response = await self._serve(request, raw)
        except StatusError as error:
            response = self._refuse(request, error)
        except Dropped:
            if raw.transport is not None:
                raw.transport.abort()
            response = web.Response(status=500)
        except (ConnectionError, RecursionError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            response = self._refuse(request, internal(f"{type(error).__name__}: {error}"))
        self._state.metrics.count(request, response.status)
        self._audit.note(request, response.status)
        return response

    async def _serve(self, request: Request, raw: web.BaseRequest) -> web.StreamResponse:
        certificate = raw.transport.get_extra_info("peercert") if raw.transport is not None else None
        request.user = self._authenticator.authenticate(request.headers, certificate, request.path)
        wanted = read_impersonated(request.headers)
        if wanted is not None:
            request.user = self._authorizer.impersonate(request.user, wanted)
        if not request.path.startswith(CONTROL):  # else a fault that strikes everything could not be taken back
            await self._state.faults.strike(request)
        self._authorizer.check(request)
        if request.method in ("POST", "PUT", "PATCH", "DELETE"):
            request.body = await _read_body(raw)
        if request.is_resource:
            return await self._serve_resource(request, raw)
        if request.path.startswith(CONTROL):
            return _respond(await serve_control(self._state, request))
        return _respond(self._paths.serve(request))

    async def _serve_resource(self, request: Request, raw: web.BaseRequest) -> web.StreamResponse:
        _check_address(request)
        kind = request.need_kind()
        if request.verb == "watch" and not request.subresource:
            self._audit.note(request, 200, "ResponseStarted")
            return await stream_watch(self._state, request, raw)
        check_method(kind, request)
        if request.subresource in STREAMS:
            self._authorizer.check_stream(request)
            request.repeated = {name: raw.query.getall(name) for name in raw.query}
            self._audit.note(request, 101, "ResponseStarted")
            return await proxy_stream(self._state, request, raw, self._kubelet)
        if request.subresource == "log":
            return await proxy_log(self._state, request, raw, self._kubelet)
        if request.subresource and request.subresource not in ("status", "finalize"):
            return self._respond_object(request, await self._serve_part(request))
        if request.plural in REVIEWS:
            return self._respond_object(request, answer_review(request, self._authenticator, self._authorizer))
        return self._reply(request, *await self._serve_object(request))

    async def _serve_object(self, request: Request) -> tuple[int, bytes]:
        state, verb = self._state, request.verb
        if verb == "get":
            return 200, read_object(state, request)
        if verb == "list":
            return 200, read_list(state, request)
        if verb == "delete":
            code, left = delete_object(state, request)
            return code, self._encode(request, left) if isinstance(left, Entry) else orjson.dumps(left)
        if verb == "deletecollection":
            metadata = {"resourceVersion": str(state.store.version)}
            entries = delete_collection(state, request)
            return 200, encode_list(negotiate(request), request.need_kind(), entries, metadata, self._now())
        action = {"create": create_object, "update": update_object, "patch": patch_object_at}[verb]
        written = await action(state, request)
        return written.code, self._encode(request, written.entry)

    async def _serve_part(self, request: Request) -> tuple[int, Mapping[str, Any]]:
        if request.subresource == "scale":
            return 200, await serve_scale(self._state, request)
        parts = {"binding": bind_pod, "eviction": evict_pod, "token": issue_token}
        if request.subresource not in parts:
            raise no_such_resource()
        return 201, parts[request.subresource](self._state, request)

    def _now(self) -> float:
        return self._state.clock.now().timestamp()

    def _encode(self, request: Request, entry: Entry) -> bytes:
        return encode_entry(negotiate(request), request.need_kind(), entry, self._now())

    def _reply(self, request: Request, code: int, body: bytes) -> web.Response:
        media = "application/yaml" if body[:1] != b"{" else JSON
        return web.Response(status=code, body=body, headers=_headers(request, media))

    def _respond_object(self, request: Request, answer: Any) -> web.Response:
        code, document = answer if isinstance(answer, tuple) else (201, answer)
        return self._reply(request, code, orjson.dumps(document))

    def _refuse(self, request: Request, error: StatusError) -> web.Response:
        headers = _headers(request, JSON) | error.headers
        return web.Response(status=error.code, body=orjson.dumps(error.status), headers=headers)


def _headers(request: Request, media: str) -> dict[str, str]:
    headers = {"Content-Type": media, "Cache-Control": "no-cache, private", "Audit-Id": str(uuid.uuid4())}
    if request.warnings:
        shown = (warning.replace("\\", "\\\\").replace('"', '\\"') for warning in request.warnings)
        headers["Warning"] = ", ".join(f'299 - "{text}"' for text in shown)
    return headers


def _respond(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.code,
        body=answer.body,
        headers={"Content-Type": answer.media, "Cache-Control": "no-cache, private"},
    )


async def _read_body(raw: web.BaseRequest) -> bytes:
    if raw.content_length is not None and raw.content_length > MAX_BODY:
        raise too_large(MAX_BODY)
    try:
        return await raw.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_large(MAX_BODY) from error


def _check_address(request: Request) -> None:
    """Refuse paths that name no resource, or one at the wrong scope."""
    kind = request.kind
    if kind is None or (request.namespace and not kind.namespaced):
        raise no_such_resource()
    if kind.namespaced and not request.namespace:
        if request.name:
            raise no_such_resource()
        if request.verb in ("create", "deletecollection"):
            raise method_not_allowed()
    if request.subresource and request.subresource not in kind.subresources:
        if request.name and kind.custom is None:
            raise no_such_resource()
        raise not_found(kind, request.name)
