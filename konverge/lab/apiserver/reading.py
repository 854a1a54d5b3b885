"""Get and list: selectors, pages that show one moment, and the rules for resourceVersion."""

from __future__ import annotations

import base64
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from konverge.lab.apiserver.representing import encode_entry, encode_list, negotiate, to_yaml
from konverge.lab.apiserver.requests import Request, parse_version
from konverge.lab.apiserver.selecting import Predicate, compile_fields, compile_labels
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import StatusError, bad_request, expired, not_found, version_too_large
from konverge.lab.apiserver.store import Entry, Object

MAX_SNAPSHOTS = 256
EXPIRED_PAGE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results."
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch selects."""

    namespace: str
    name: str
    labels: Predicate | None
    fields: Predicate | None

    def matches(self, obj: Object) -> bool:
        """Whether an object is selected."""
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        if self.name and metadata["name"] != self.name:
            return False
        return (self.labels is None or self.labels(obj)) and (self.fields is None or self.fields(obj))


def read_selection(request: Request) -> Selection:
    """Return the selection of a request; 400 for selectors that cannot be understood."""
    kind = request.need_kind()
    selectable = frozenset(kind.custom.selectable) if kind.custom else frozenset()
    return Selection(
        request.namespace,
        request.name,
        compile_labels(request.query.get("labelSelector", "")),
        compile_fields(request.query.get("fieldSelector", ""), kind.storage, selectable),
    )


class Snapshots:
    """The rest of paged lists, so that all pages show the moment of the first one."""

    def __init__(self) -> None:
        self._rest: OrderedDict[int, list[Entry]] = OrderedDict()
        self._ids = itertools.count(1)

    def keep(self, rest: list[Entry]) -> int:
        """Keep what is left of a list; the oldest snapshot goes where there are too many."""
        number = next(self._ids)
        self._rest[number] = rest
        while len(self._rest) > MAX_SNAPSHOTS:
            self._rest.popitem(last=False)
        return number

    def find(self, number: int) -> list[Entry] | None:
        """Return what is left, or None where it is gone."""
        return self._rest.get(number)

    def clear(self) -> None:
        """Forget all snapshots, as compaction does."""
        self._rest.clear()


def read_object(state: State, request: Request) -> bytes:
    """Return one object in the form that was asked for."""
    kind = request.need_kind()
    _check_version(state, parse_version(request))
    entry = state.store.collection(kind.storage).get(request.namespace, request.name)
    if entry is None:
        raise not_found(kind, request.name)
    form = negotiate(request)
    body = encode_entry(form, kind, entry, state.clock.now().timestamp())
    return to_yaml(body) if form.yaml else body


def read_list(state: State, request: Request) -> bytes:
    """Return a page of objects."""
    kind = request.need_kind()
    form = negotiate(request)
    entries, metadata = select_page(state, request)
    body = encode_list(form, kind, entries, metadata, state.clock.now().timestamp())
    return to_yaml(body) if form.yaml else body


def select_entries(state: State, request: Request) -> list[Entry]:
    """Return all selected objects in order."""
    kind = request.need_kind()
    selection = read_selection(request)
    entries = state.store.collection(kind.storage).entries(request.namespace)
    if selection.labels is None and selection.fields is None and not selection.name:
        return entries
    return [entry for entry in entries if selection.matches(entry.object)]


def select_page(state: State, request: Request) -> tuple[Sequence[Entry], Object]:
    """Return the entries and list metadata of one page."""
    _check_match(request)
    limit = _read_limit(request)
    token = request.query.get("continue", "")
    if token:
        if request.query.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        version, entries = _resume(state, request, token)
    else:
        _check_version(state, parse_version(request))
        _check_exact(state, request)
        version, entries = state.store.version, select_entries(state, request)
    metadata: Object = {"resourceVersion": str(version)}
    if not limit or len(entries) <= limit:
        return entries, metadata
    page, rest = entries[:limit], entries[limit:]
    metadata["continue"] = _encode_token(version, page[-1].key, state.snapshots.keep(rest))
    if not request.query.get("labelSelector") and not request.query.get("fieldSelector"):
        metadata["remainingItemCount"] = len(rest)
    return page, metadata


def _read_limit(request: Request) -> int:
    text = request.query.get("limit", "") or "0"
    if not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return max(0, int(text))


def _encode_token(version: int, start: tuple[str, str], snapshot: int) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": "/".join(start), "s": snapshot}
    return base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")


def _resume(state: State, request: Request, token: str) -> tuple[int, list[Entry]]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, snapshot = int(data["rv"]), int(data["s"])
        namespace, _, name = data["start"].partition("/")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    if version >= 0:
        rest = state.snapshots.find(snapshot)
        if rest is None:
            raise _expired_page((namespace, name))
        return version, rest
    later = [entry for entry in select_entries(state, request) if entry.key > (namespace, name)]
    return state.store.version, later


def _expired_page(start: tuple[str, str]) -> StatusError:
    error = expired(EXPIRED_PAGE)
    error.status["metadata"] = {"continue": _encode_token(-1, start, 0)}
    return error


def _check_version(state: State, version: int | None) -> None:
    if version is not None and version > state.store.version:
        raise version_too_large(version, state.store.version)


def _check_match(request: Request) -> None:
    match = request.query.get("resourceVersionMatch", "")
    if not match:
        return
    if match not in ("Exact", "NotOlderThan"):
        raise bad_request(f'resourceVersionMatch: Unsupported value: "{match}"')
    version = request.query.get("resourceVersion", "")
    if not version:
        raise bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match == "Exact" and version == "0":
        raise bad_request(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
        )


def _check_exact(state: State, request: Request) -> None:
    """Refuse a list at an exact older version, whose state is not kept: the real server does so after compaction."""
    version = parse_version(request)
    exact = request.query.get("resourceVersionMatch") == "Exact"
    if exact and version is not None and version != state.store.version:
        newest = max(
            (event.version for event in state.store.collection(request.need_kind().storage).history), default=0
        )
        if version < newest:
            raise expired()
