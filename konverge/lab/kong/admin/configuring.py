"""POST /config and GET /config."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.admin.answers import Answer, page, say
from konverge.lab.kong.admin.parameters import BadJson, CrashingJson, accepts, last, parse_body
from konverge.lab.kong.declarative.compiling import compile_document
from konverge.lab.kong.declarative.failures import Crash, ParseFailure, Refusal, describe, describe_parse
from konverge.lab.kong.declarative.flattening import describe_flattened
from konverge.lab.kong.declarative.parsing import NOT_A_STRING, parse_text
from konverge.lab.kong.state import EMPTY_HASH, Entities, StoreFull, hash_entities, hash_text
from konverge.lab.kong.wire.body import BodyTooLarge
from konverge.lab.kong.wire.exchange import Reply, Request
from konverge.lab.kong.wire.stream import StreamClosed

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

THREAD_FROM = 64 * 1024
"""Bodies of this size are compiled in a thread, so that the loop goes on serving."""
TRUE = (True, 1, "1", "true", "on", "yes")
BUSY = "Currently loading previous configuration"
EXITING = "Kong currently exiting"
NOT_WITH_DATABASE = "this endpoint is only available when Kong is configured to not use a database"
UNEXPECTED = "An unexpected error occurred"
TOO_LARGE_FOR_LMDB = (
    'Configuration does not fit in LMDB database, consider raising the "lmdb_map_size" config for Kong'
)


@dataclass(slots=True)
class Submission:
    """A configuration as it was sent: a text, or a JSON document."""

    text: bytes | None = None
    document: Any = None
    check_hash: bool = False
    flatten: bool = False


class Answered(Exception):
    """There is an answer already."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def read_body(node: StandInKong, request: Request, reply: Reply) -> bytes:
    """Read a body within the limits of the listener. Raises Answered with nginx's 413."""
    limit = node.settings.client_max_body
    length = request.body.length
    if length is not None and limit and length > limit:
        raise Answered(page(413, cors=False))
    reset_after = node.faults.reset_after
    if reset_after >= 0:
        await _reset_inside(request, reply, reset_after)
    try:
        return await request.body.read_all(limit or None)
    except BodyTooLarge:
        raise Answered(page(413)) from None


async def _reset_inside(request: Request, reply: Reply, limit: int) -> None:
    seen = 0
    while seen < limit and (piece := await request.body.read()):
        seen += len(piece)
    reply.reset()
    raise StreamClosed("reset by fault injection")


def read_submission(request: Request, query: dict[str, Any], body: bytes, buffer: int) -> Submission:
    """Find the configuration in a request. Raises Answered for everything that is none."""
    content_type = request.headers.get("content-type")
    if body and not accepts(content_type):
        raise Answered(page(415))
    spilled = len(body) > buffer
    try:
        parameters = query | parse_body(content_type, b"" if spilled else body)
    except BadJson:
        raise Answered(say(400, "Cannot parse JSON body")) from None
    except CrashingJson:
        raise Answered(say(500, UNEXPECTED)) from None
    submission = Submission(
        check_hash=last(parameters.pop("check_hash", None)) in ("1", 1, b"1"),
        flatten=_is_true(last(parameters.pop("flatten_errors", None))),
    )
    json = (content_type or "").startswith("application/json")
    if "config" in parameters:
        config = last(parameters["config"])
        if isinstance(config, str):
            config = config.encode("utf-8", "surrogateescape")
        if not isinstance(config, bytes):
            raise Answered(Answer(400, describe_parse(NOT_A_STRING)))
        submission.text = config
    elif json and body:
        submission.document = parameters
    elif body and not spilled:
        submission.text = body
    else:
        raise Answered(say(400, "expected a declarative configuration"))
    return submission


def _is_true(value: Any) -> bool:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value in TRUE


async def post_config(node: StandInKong, request: Request, query: dict[str, Any], reply: Reply) -> Answer:
    """Load a configuration. The order of the checks is Kong's."""
    if node.follower is not None:
        return say(400, NOT_WITH_DATABASE)
    try:
        body = await read_body(node, request, reply)
        if node.exiting or node.is_draining(request):
            return say(503, EXITING)
        if node.faults.take("busy"):
            return Answer(429, {"message": BUSY}, headers=[("Retry-After", "10")])
        if node.faults.take("exiting_503"):
            return say(503, EXITING)
        submission = read_submission(request, query, body, node.settings.body_buffer)
    except Answered as early:
        if early.answer.status == 413:
            reply.close_after()
        return early.answer
    return await load_submission(node, submission)


async def load_submission(node: StandInKong, submission: Submission) -> Answer:
    """Compile and commit a configuration."""
    fresh = hash_text(submission.text) if submission.text is not None else ""
    if submission.check_hash and fresh and fresh == node.snapshot.hash:
        return Answer(304)
    started = time.monotonic()
    size = len(submission.text) if submission.text is not None else 0
    try:
        if size >= THREAD_FROM or submission.document is not None:
            entities = await asyncio.to_thread(_compile, node, submission)
        else:
            entities = _compile(node, submission)
    except ParseFailure as failure:
        return Answer(400, describe_parse(str(failure)))
    except Crash:
        return say(500, UNEXPECTED)
    except Refusal as refusal:
        if submission.flatten:
            return Answer(400, describe_flattened(refusal.errors, refusal.document, node.registry))
        return Answer(400, describe(refusal.errors))
    if not any(entities.values()):
        fresh = EMPTY_HASH
    fresh = fresh or hash_entities(entities, node.node_id)
    return await _commit(node, entities, fresh, started)


def _compile(node: StandInKong, submission: Submission) -> Entities:
    document = submission.document if submission.text is None else parse_text(submission.text)
    return compile_document(document, node.registry, node.now())


async def _commit(node: StandInKong, entities: Entities, fresh: str, started: float) -> Answer:
    # Everything up to here is parsing, which two posts may do at once; the lock is about loading.
    routes = len(entities.get("routes", ()))
    timing = node.settings.timing
    held = timing.lock_time(routes)
    wanted = timing.load_time(routes) + node.faults.load_extra - held
    await asyncio.sleep(max(0.0, wanted - (time.monotonic() - started)))
    if not node.lock.acquire():
        return Answer(429, {"message": BUSY}, headers=[("Retry-After", str(node.lock.retry_after()))])
    try:
        if held:
            await asyncio.sleep(held)
        if node.exiting:
            return say(503, EXITING)
        if node.faults.take("lmdb_full"):
            return say(413, TOO_LARGE_FOR_LMDB)
        await node.commit(entities, fresh)
    except StoreFull:
        return say(413, TOO_LARGE_FOR_LMDB)
    finally:
        node.lock.release()
    if node.faults.take("stored_500"):
        return say(500, UNEXPECTED)
    shown = {kind: found for kind, found in entities.items() if found}
    if len(entities.get("routes", ())) > 200:
        import orjson

        return Answer(201, await asyncio.to_thread(orjson.dumps, shown))
    return Answer(201, shown)


async def get_config(node: StandInKong) -> Answer:
    """Dump the configuration as YAML, credentials in clear."""
    if node.follower is not None:
        return say(400, NOT_WITH_DATABASE)
    return Answer(200, {"config": await asyncio.to_thread(dump_yaml, node.snapshot.entities)})


def dump_yaml(entities: Entities) -> str:
    """Return the YAML that GET /config gives."""
    import yaml

    document: dict[str, Any] = {"_transform": False, "_format_version": "3.0"}
    for kind, found in entities.items():
        if found:
            document[kind] = [
                {name: value["id"] if _is_reference(value) else value for name, value in entity.items()}
                for _, entity in sorted(found.items())
            ]
    text = yaml.dump(document, Dumper=_dumper(), sort_keys=False, default_flow_style=False, allow_unicode=True)
    return str(text)


@cache
def _dumper() -> Any:
    """Return a safe dumper that writes null as ~, like Kong's."""
    import yaml

    class Dumper(yaml.CSafeDumper):
        pass

    Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "~"))
    return Dumper


def _is_reference(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"id"}
