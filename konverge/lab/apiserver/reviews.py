"""Questions about identity and access: reviews that are answered and never stored."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.authentication import Authenticator
from konverge.lab.apiserver.authorizing import Attributes, Authorizer
from konverge.lab.apiserver.decoding import parse_body
from konverge.lab.apiserver.requests import Request, User
from konverge.lab.apiserver.statuses import StatusError, bad_request
from konverge.lab.apiserver.store import Object
from konverge.lab.apiserver.tokens import ISSUER

RESOURCES = frozenset(
    {
        "tokenreviews",
        "selfsubjectreviews",
        "selfsubjectaccessreviews",
        "subjectaccessreviews",
        "localsubjectaccessreviews",
        "selfsubjectrulesreviews",
    }
)


def describe_user(user: User) -> Object:
    """Return a user as reviews show it."""
    shown: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        shown["uid"] = user.uid
    if user.extra:
        shown["extra"] = {key: list(values) for key, values in user.extra.items()}
    return shown


def answer_review(request: Request, authenticator: Authenticator, authorizer: Authorizer) -> Object:
    """Return the review with its status."""
    body = parse_body(request.body, request.headers.get("Content-Type", "")) if request.body else {}
    if not isinstance(body, dict):
        raise bad_request("expected an object")
    kind = request.need_kind()
    spec = body.get("spec") or {}
    status = _find_status(request, spec, authenticator, authorizer)
    review = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": body.get("metadata") or {}}
    if request.plural == "selfsubjectreviews":
        review["metadata"] = {"creationTimestamp": None}
        return review | {"status": status}
    return review | {"spec": spec, "status": status}


def _find_status(request: Request, spec: Object, authenticator: Authenticator, authorizer: Authorizer) -> Object:
    if request.plural == "tokenreviews":
        return _review_token(spec, authenticator)
    if request.plural == "selfsubjectreviews":
        return {"userInfo": describe_user(request.user)}
    if request.plural == "selfsubjectrulesreviews":
        return _list_rules(request.user, spec.get("namespace") or "", authorizer)
    user = request.user
    if request.plural != "selfsubjectaccessreviews":
        extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
        user = User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra)
    allowed, reason = authorizer.allows(user, _read_attributes(request, spec))
    return {"allowed": allowed, "reason": reason} if reason else {"allowed": allowed}


def _read_attributes(request: Request, spec: Object) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(resource) == bool(path):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        kind = request.need_kind()
        cause = {
            "reason": "FieldValueInvalid",
            "message": f"Invalid value: {text}",
            "field": "spec.resourceAttributes",
        }
        details = {"group": kind.group, "kind": kind.kind, "causes": [cause]}
        raise StatusError(
            422, "Invalid", f'{kind.kind}.{kind.group} "" is invalid: spec.resourceAttributes: {text}', details
        )
    if path:
        return Attributes(path.get("verb") or "", path=path.get("path") or "")
    assert resource is not None
    return Attributes(
        resource.get("verb") or "",
        resource.get("group") or "",
        resource.get("resource") or "",
        resource.get("subresource") or "",
        resource.get("namespace") or "",
        resource.get("name") or "",
    )


def _review_token(spec: Object, authenticator: Authenticator) -> Object:
    audiences = tuple(spec.get("audiences") or (ISSUER,))
    user = authenticator.check_token(spec.get("token") or "", audiences)
    if user is None:
        return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": describe_user(user), "audiences": list(audiences)}


def _list_rules(user: User, namespace: str, authorizer: Authorizer) -> Object:
    rules = authorizer.list_rules(user, namespace)
    resources: list[Any] = [rule for rule in rules if rule.get("resources")]
    paths: list[Any] = [rule for rule in rules if rule.get("nonResourceURLs")]
    return {"resourceRules": resources, "nonResourceRules": paths, "incomplete": False}
