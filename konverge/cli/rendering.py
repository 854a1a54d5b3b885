"""``konverge render``, ``konverge diff`` and ``konverge explain``: what the proxies would get, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from konverge.cli.differences import show_differences
from konverge.cli.manifests import dump_yaml, list_objects, read_documents
from konverge.cli.options import Context, Kubeconfig, Namespace, Output
from konverge.cli.output import Format, errors, fail, print_json, run_async
from konverge.cli.sources import Access, open_source, read_now
from konverge.errors import DOCS, KonvergeError, NotFound, UsageError
from konverge.kong.declarative.comparing import compare, uncompared
from konverge.kube.client import KubeClient
from konverge.operate.rendering import gather_sources
from konverge.translate import Problem, Rendered, Settings, Translator, for_cluster, render_fallback
from konverge.translate.explaining import EntityRef, Link, explain_entity, explain_object, problems_of
from konverge.translate.kinds import KINDS
from konverge.translate.settings import FEATURES, WITHOUT_EFFECT
from konverge.translate.translator import render as translate

DIFFERENT = 2
"""Exit code where two configurations differ."""
SHOWN_PROBLEMS = 20
"""Problems shown on standard error; all of them go to the file of ``--problems``."""

Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="Manifests: a file, a directory, or - for standard input. Repeatable."),
]
FromCluster = Annotated[bool, typer.Option("--from-cluster", help="Read the objects of the cluster.")]
IngressClass = Annotated[str, typer.Option("--ingress-class", help="The class whose objects are translated.")]
Features = Annotated[
    list[str] | None, typer.Option("--feature", help="A feature gate: NAME=true or NAME=false. Repeatable.")
]
KongVersion = Annotated[str, typer.Option("--kong-version", help="Version of the gateways.")]
ClusterDomain = Annotated[
    str, typer.Option("--cluster-domain", help="Appended to names of service-upstream targets.")
]
GatewayController = Annotated[
    str | None, typer.Option("--gateway-controller", help="controllerName of the GatewayClasses that are ours.")
]


class DocumentFormat(StrEnum):
    """How a document is printed."""

    YAML = "yaml"
    JSON = "json"


def render(
    filename: Files = None,
    from_cluster: FromCluster = False,
    ingress_class: IngressClass = "kong",
    feature: Features = None,
    broken: Annotated[
        list[str] | None,
        typer.Option("--broken", help="As if the gateway had refused KIND/NAMESPACE/NAME (KIND//NAME). Repeatable."),
    ] = None,
    output: Annotated[DocumentFormat, typer.Option("--output", "-o", help="Format.")] = DocumentFormat.YAML,
    problems: Annotated[
        Path | None, typer.Option("--problems", help="Write the problems to this file, as JSON.")
    ] = None,
    kong_version: KongVersion = "3.9.1",
    cluster_domain: ClusterDomain = "",
    gateway_controller: GatewayController = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Print the configuration that Kubernetes objects come to, and nothing else on standard output.

    The document holds credentials and private keys. Problems go to standard error.

    Example: konverge render -f manifests/ --feature ExpressionRoutes=true -o yaml
    """
    try:
        settings = build_settings(
            ingress_class, feature, kong_version, cluster_domain, gateway_controller, from_cluster
        )
        refused = [parse_object(text) for text in broken or ()]
        objects = _gather(filename, from_cluster, kubeconfig, context)
        rendered = render_fallback(objects, refused, settings) if refused else translate(objects, settings)
        if problems is not None:
            _write_problems(problems, rendered.problems)
    except KonvergeError as error:
        fail(error)
    _show_problems(rendered.problems)
    typer.echo(_format(rendered, output), nl=False)


def build_settings(
    ingress_class: str,
    feature: Iterable[str] | None,
    kong_version: str,
    cluster_domain: str = "",
    gateway_controller: str | None = None,
    live: bool = False,
) -> Settings:
    """Return the settings of the command line; ``live`` starts from those of a running installation."""
    features = dict(parse_feature(text) for text in feature or ())
    settings = Settings(ingress_class=ingress_class, features=features, kong_version=kong_version)
    if live:
        settings = for_cluster(ingress_class=ingress_class, features=features, kong_version=kong_version)
    if gateway_controller is not None:
        settings = replace(settings, gateway_controller=gateway_controller)
    return replace(settings, cluster_domain=cluster_domain, now=read_now())


def parse_feature(text: str) -> tuple[str, bool]:
    """Return (name, value) of ``NAME=true``; UsageError where the feature does not exist."""
    name, equals, value = text.partition("=")
    if not equals or value.lower() not in ("true", "false"):
        raise UsageError(f"--feature {text}: must be NAME=true or NAME=false", hint="reference/cli.md#render")
    if name not in FEATURES and name not in WITHOUT_EFFECT:
        raise UsageError(
            f"--feature {name}: no such feature; there are {', '.join(sorted(FEATURES))}",
            hint="reference/cli.md#render",
        )
    return name, value.lower() == "true"


def parse_object(text: str) -> tuple[str, str, str]:
    """Return (kind, namespace, name) of ``KIND/NAMESPACE/NAME``; the kind may be written in any case."""
    parts = text.split("/")
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise UsageError(
            f"{text!r}: must be KIND/NAMESPACE/NAME, or KIND//NAME for cluster-scoped kinds",
            hint="reference/cli.md#render",
        )
    kind = next((name for name in KINDS if name.lower() == parts[0].lower()), parts[0])
    return kind, parts[1], parts[2]


def _gather(files: list[str] | None, from_cluster: bool, kubeconfig: str | None, context: str | None) -> list[Any]:
    if bool(files) == from_cluster:
        raise UsageError("Give either -f FILE or --from-cluster", hint="reference/cli.md#render")
    if from_cluster:
        return run_async(_gather_cluster(kubeconfig, context))
    return list_objects([document for path in files or () for document in read_documents(path)])


async def _gather_cluster(kubeconfig: str | None, context: str | None) -> list[Any]:
    async with await KubeClient.connect(kubeconfig, context) as kube:
        return list(await gather_sources(kube))


def _format(rendered: Rendered, output: DocumentFormat) -> str:
    if output is DocumentFormat.YAML:
        return dump_yaml(rendered.document)
    return orjson.dumps(rendered.document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def describe_problem(problem: Problem) -> dict[str, Any]:
    """Return a problem as a JSON object."""
    ref = problem.object_ref
    return {
        "object": {
            "kind": ref.kind,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": ref.uid,
            "apiVersion": ref.api_version,
        },
        "reason": problem.reason,
        "message": problem.message,
        "hint": DOCS + problem.hint,
    }


def _write_problems(path: Path, problems: Iterable[Problem]) -> None:
    content = orjson.dumps([describe_problem(problem) for problem in problems], option=orjson.OPT_INDENT_2)
    try:
        path.write_bytes(content + b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", reason="UnwritableFile") from error


def _show_problems(problems: tuple[Problem, ...]) -> None:
    for problem in problems[:SHOWN_PROBLEMS]:
        text = f"{problem.reason}: {problem.object_ref}: {problem.message}"
        errors.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if len(problems) > SHOWN_PROBLEMS:
        errors.print(f"... and {len(problems) - SHOWN_PROBLEMS} more problems, see --problems", style="yellow")


def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="FILE, DIRECTORY, proxy:URL, revision:N or cluster.")],
    right: Annotated[str, typer.Argument(metavar="B", help="What A is compared with.")],
    ingress_class: IngressClass = "kong",
    feature: Features = None,
    kong_version: KongVersion = "3.9.1",
    client_cert: Annotated[Path | None, typer.Option("--client-cert", help="Our certificate for Admin APIs.")] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", help="Its private key.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Bundle that Admin APIs are verified with.")] = None,
    server_name: Annotated[str, typer.Option("--server-name", help="Name in the Admin API's certificate.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the Admin API's certificate.")] = False,
    fleet: Annotated[str, typer.Option("--fleet", envvar="KONVERGE_FLEET", help="Fleet of revision:N.")] = "",
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Compare two configurations by what Kong makes of them; exit code 2 where they differ.

    Nesting, order of sets and defaults of Kong's schemas do not count; secrets are never shown.

    Example: konverge diff proxy:https://10.0.0.7:8444 cluster --client-cert tls.crt --client-key tls.key --ca ca.crt
    """
    try:
        access = Access(
            settings=build_settings(ingress_class, feature, kong_version),
            cluster_settings=build_settings(ingress_class, feature, kong_version, live=True),
            kubeconfig=kubeconfig,
            context=context,
            fleet=fleet,
            namespace=namespace,
            client_cert=client_cert,
            client_key=client_key,
            ca=ca,
            server_name=server_name,
            insecure=insecure,
        )
        sources = open_source(left, access), open_source(right, access)
    except KonvergeError as error:
        fail(error, output)
    one = run_async(sources[0].load(), output)
    other = run_async(sources[1].load(), output)
    found = compare(one, other)
    if output is Format.JSON:
        print_json({"different": bool(found), "differences": [difference.to_json() for difference in found]})
    else:
        show_differences(found, uncompared(one, other))
    raise typer.Exit(DIFFERENT if found else 0)


def explain(
    subject: Annotated[
        str,
        typer.Argument(metavar="SUBJECT", help="KIND/NAMESPACE/NAME of an object, or e.g. route:NAME of an entity."),
    ],
    filename: Files = None,
    ingress_class: IngressClass = "kong",
    feature: Features = None,
    kong_version: KongVersion = "3.9.1",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show which Kong entities come from an object, or which objects a Kong entity comes from.

    Reads the cluster unless manifests are given.

    Example: konverge explain Ingress/shop/checkout; konverge explain route:shop.checkout.cart.example.com.80
    """
    try:
        settings = build_settings(ingress_class, feature, kong_version, live=not filename)
        translator = Translator(settings)
        translator.replace(_gather(filename, not filename, kubeconfig, context))
        rendered = translator.render()
        links, problems = _explain(translator, rendered, subject)
    except KonvergeError as error:
        fail(error, output)
    if output is Format.JSON:
        print_json(
            {"links": [_describe_link(link) for link in links], "problems": [*map(describe_problem, problems)]}
        )
        return
    _show_links(links, by_object="/" not in subject)
    for problem in problems:
        typer.echo(f"! {problem.reason}: {problem.message} (see {DOCS}{problem.hint})")


def _explain(translator: Translator, rendered: Rendered, subject: str) -> tuple[list[Link], list[Problem]]:
    prefix, colon, name = subject.partition(":")
    if colon and "/" not in prefix:
        kind = _entity_kind(prefix)
        links = explain_entity(translator, kind, name)
        if not links:
            raise NotFound(f"No {prefix} {name!r} comes from any object", hint="reference/cli.md#explain")
        return links, []
    key = parse_object(subject)
    problems = problems_of(rendered.problems, key)
    if key not in translator.objects and not problems:
        raise NotFound(f"There is no object {subject}", hint="reference/cli.md#explain")
    return explain_object(translator, key), problems


_ENTITY_KINDS: Mapping[str, str] = {
    "service": "services",
    "route": "routes",
    "upstream": "upstreams",
    "plugin": "plugins",
    "consumer": "consumers",
    "consumer-group": "consumer_groups",
    "certificate": "certificates",
    "ca-certificate": "ca_certificates",
    "vault": "vaults",
}


def _entity_kind(word: str) -> str:
    singular = word.removesuffix("s").replace("_", "-")
    if singular not in _ENTITY_KINDS:
        known = ", ".join(_ENTITY_KINDS)
        raise UsageError(f"{word!r} is no kind of Kong entity; there are {known}", hint="reference/cli.md#explain")
    return _ENTITY_KINDS[singular]


def _describe_link(link: Link) -> dict[str, Any]:
    entity: EntityRef = link.entity
    return {
        "entity": {"kind": entity.kind, "name": entity.name},
        "object": str(link.object_ref),
        "relation": link.relation,
    }


def _show_links(links: list[Link], *, by_object: bool) -> None:
    for relation in dict.fromkeys(link.relation for link in links):
        typer.echo(f"{relation}:")
        for link in links:
            if link.relation == relation:
                typer.echo(f"  {link.object_ref}" if by_object else f"  {link.entity.kind} {link.entity.name}")
    if not links:
        typer.echo("nothing comes from it")
