"""The controller's loop: translate every few seconds and push where the translation changed.

As the real one it compares with what it sent last, held in memory, never with what the proxy has loaded: only a
hash of zeros makes it push again. A refused document is sent again at every tick, each time followed by the last
good one where there is one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from konverge.errors import KonvergeError, Unavailable
from konverge.lab.sidecar.admin import ZEROS, Answer, KongAdmin
from konverge.lab.sidecar.reporting import Reporter, Subject, read_tags
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.watching import ClusterView
from konverge.translate import Problem, Rendered, Settings, render
from konverge.translate.settings import for_cluster

log = logging.getLogger(__name__)

TRANSLATION_FAILED = "KongConfigurationTranslationFailed"
APPLY_FAILED = "KongConfigurationApplyFailed"
SUCCEEDED = "KongConfigurationSucceeded"
PLUGIN_KINDS = frozenset({"KongPlugin", "KongClusterPlugin"})
FILTER_PLUGINS = frozenset({"request-transformer", "response-transformer", "request-termination", "redirect"})
"""Plugins that translation itself makes, from filters and missing backends."""

Notice = tuple[Subject, str, str]


@dataclass(slots=True)
class Counters:
    """What the metrics endpoint shows."""

    pushes: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    translations: int = 0
    problems: int = 0


class Synchronizer:
    """Keeps one proxy configured."""

    def __init__(self, view: ClusterView, admin: KongAdmin, reporter: Reporter, settings: SidecarSettings) -> None:
        self._view = view
        self._admin = admin
        self._reporter = reporter
        self._settings = settings
        self.counters = Counters()
        self.synced = asyncio.Event()
        """Set once a configuration has been taken; the controller is ready from then on."""
        self._rendered: tuple[int, Rendered] | None = None
        self._sent = ""
        self._last_good: Mapping[str, Any] | None = None
        self._translation = Settings()

    async def run(self) -> None:
        """Synchronise until cancelled; Unavailable where the Admin API does not come up in time."""
        await self._view.wait_until_synced()
        await asyncio.sleep(self._settings.cache_sync)
        await self.meet_proxy()
        while True:
            try:
                await self.tick()
            except KonvergeError as error:
                log.warning("not synchronised, again in %g s: %s", self._settings.sync_seconds, error)
            await asyncio.sleep(self._settings.sync_seconds)

    async def meet_proxy(self) -> None:
        """Wait for the Admin API and learn the gateway's version and router."""
        for left in reversed(range(max(1, self._settings.admin_tries))):
            try:
                await self._admin.read_hash()
                root = await self._admin.read_root()
                break
            except Unavailable as error:
                if not left:
                    raise
                log.info("waiting for the proxy: %s", error)
                await asyncio.sleep(self._settings.admin_delay)
        flavor = (root.get("configuration") or {}).get("router_flavor", "traditional")
        self._translation = for_cluster(
            ingress_class=self._settings.ingress_class,
            features={"ExpressionRoutes": flavor == "expressions", **self._settings.features},
            kong_version=str(root.get("version", "")),
        )

    async def tick(self) -> None:
        """Translate, and push what differs from what was sent last."""
        rendered = await self._translate()
        document = rendered.document
        digest = digest_of(document)
        notices = [(_subject_of(problem), TRANSLATION_FAILED, problem.message) for problem in rendered.problems]
        if digest != self._sent or await self._admin.read_hash() == ZEROS:
            answer = await self._push(document)
            notices += refusal_notices(answer)
            if not answer.stored:
                self._sent = ""
                await self._reporter.tell_objects(notices)
                await self._recover(answer)
                return
            self._sent, self._last_good = digest, document
            self.synced.set()
        await self._reporter.tell_objects(notices)
        await self._reporter.update_statuses(document)

    async def _translate(self) -> Rendered:
        changes = self._view.changes
        if self._rendered is not None and self._rendered[0] == changes:
            return self._rendered[1]
        objects = list(self._view.sources())
        schemas = await self._admin.read_schemas(plugin_names(objects))
        settings = replace(self._translation, plugin_schemas=schemas, now=datetime.now(UTC))
        rendered = render(objects, settings)
        self.counters.translations += 1
        self.counters.problems = len(rendered.problems)
        self._rendered = changes, rendered
        return rendered

    async def _push(self, document: Mapping[str, Any]) -> Answer:
        try:
            answer = await self._admin.push(document)
        except Unavailable as error:
            self.counters.pushes[False] += 1
            await self._reporter.tell_pod(
                APPLY_FAILED, f"no configuration for {self._admin.url}: {error}", warning=True
            )
            raise
        self.counters.pushes[answer.stored] += 1
        if answer.stored:
            await self._reporter.tell_pod(SUCCEEDED, f"successfully applied Kong configuration to {self._admin.url}")
        else:
            text = f"failed to apply Kong configuration to {self._admin.url}: HTTP {answer.status}"
            await self._reporter.tell_pod(APPLY_FAILED, text, warning=True)
        return answer

    async def _recover(self, answer: Answer) -> None:
        """Send the last good document after a refusal, as the real controller does without the fallback gate."""
        log.warning("Kong refused the configuration with %d: %s", answer.status, answer.message)
        if answer.refused and self._last_good is not None:
            await self._push(self._last_good)


def digest_of(document: Mapping[str, Any]) -> str:
    """Return a digest of a document that does not depend on the order of its keys."""
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def plugin_names(objects: list[dict[str, Any]]) -> set[str]:
    """Return the names of the plugins that objects ask for."""
    named = {str(body["plugin"]) for body in objects if body["kind"] in PLUGIN_KINDS and body.get("plugin")}
    return named | (FILTER_PLUGINS if any(body["kind"] == "HTTPRoute" for body in objects) else set())


def refusal_notices(answer: Answer) -> Iterator[Notice]:
    """Yield a notice for each object that Kong's flattened errors name by their tags."""
    for error in answer.errors:
        tags = read_tags(str(tag) for tag in error.get("entity_tags") or ())
        if not tags.keys() >= {"kind", "name", "uid"}:
            continue
        group, version = tags.get("group", ""), tags.get("version", "v1")
        subject = Subject(
            kind=tags["kind"],
            name=tags["name"],
            namespace=tags.get("namespace", ""),
            uid=tags["uid"],
            api_version=f"{group}/{version}" if group else version,
        )
        for item in error.get("errors") or ():
            place = item.get("field") or f"{error.get('entity_type')}:{error.get('entity_name', '')}"
            yield subject, APPLY_FAILED, f"invalid {place}: {item.get('message') or item.get('messages')}"


def _subject_of(problem: Problem) -> Subject:
    ref = problem.object_ref
    return Subject(ref.kind, ref.name, ref.namespace, ref.uid, ref.api_version or "v1")
