"""Checks of certificates and mutual TLS."""

from __future__ import annotations

from datetime import timedelta

from konverge.checks.api import judge_skew
from konverge.checks.registry import Answer, Severity, Stage, check, failed, failed_if, passed, skipped
from konverge.checks.scene import Scene
from konverge.checks.services import require_deployment, require_fleet
from konverge.pki.handshake import HandshakeReason

CATEGORY = "mTLS and certificates"
SOON = timedelta(days=3)
OFF = ("KONG_NGINX_ADMIN_SSL_SESSION_TICKETS", "KONG_NGINX_ADMIN_SSL_SESSION_CACHE")


@check(
    "identity-stored",
    CATEGORY,
    Severity.ERROR,
    "The identities of the fleet are stored and fit together",
    fix="konverge certs renew --fleet NAME makes what is missing; a broken one is named in the message.",
    stage=Stage.AFTER,
)
def identity_stored(scene: Scene) -> Answer:
    """Authority, controller and proxies have certificates whose keys and bundles fit."""
    require_fleet(scene)
    return passed(f"{len(scene.certificates.get())} certificates")


@check(
    "certificates-valid",
    CATEGORY,
    Severity.ERROR,
    "No certificate has expired or is about to",
    fix="konverge certs rotate --fleet NAME; then look why the schedule did not.",
    stage=Stage.AFTER,
)
def certificates_valid(scene: Scene) -> Answer:
    """Every certificate is valid for some days more, or at least for a third of its short lifetime."""
    require_fleet(scene)
    views = scene.certificates.get()
    late = [
        f"the certificate of {view.role} expires {view.expires:%Y-%m-%d %H:%M}Z"
        for view in views
        if view.expires - scene.now < min(SOON, (view.expires - view.renew_at) / 2)
    ]
    first = min(views, key=lambda view: view.expires)
    return failed_if(late, f"the first to expire is that of {first.role}, {first.expires:%Y-%m-%d}")


@check(
    "certificates-renewed",
    CATEGORY,
    Severity.WARNING,
    "Certificates are renewed in time",
    fix="konverge certs renew --fleet NAME; is the schedule of cert-rotation active, and a worker online?",
    stage=Stage.AFTER,
)
def certificates_renewed(scene: Scene) -> Answer:
    """None is past two thirds of its lifetime."""
    require_fleet(scene)
    due = [
        f"that of {view.role} since {view.renew_at:%Y-%m-%d %H:%M}Z" for view in scene.certificates.get() if view.due
    ]
    return failed_if(due, "none is due")


@check(
    "rotation-finished",
    CATEGORY,
    Severity.WARNING,
    "No rotation of the authority was left half-way",
    fix="konverge certs renew --fleet NAME goes on where it was left.",
    stage=Stage.AFTER,
)
def rotation_finished(scene: Scene) -> Answer:
    """There is one authority, not two."""
    require_fleet(scene)
    two = any(view.role == "next authority" for view in scene.certificates.get())
    return failed("two authorities are in force") if two else passed("one authority")


@check(
    "proxies-handshake",
    CATEGORY,
    Severity.ERROR,
    "Controller and proxies accept each other",
    fix="konverge status FLEET shows which side refuses; docs/howto/rotate-certificates.md shows the way back.",
    stage=Stage.AFTER,
)
def proxies_handshake(scene: Scene) -> Answer:
    """A handshake and one call with every proxy that answers."""
    require_fleet(scene)
    views = scene.gateways.get()
    bad = [
        f"{view.name}: {view.shown.message or view.shown.reason.value}"
        for view in views
        if view.shown.reason is not HandshakeReason.ACCEPTED
    ]
    return failed_if(bad, f"{len(views)} proxies")


@check(
    "tls-version",
    CATEGORY,
    Severity.WARNING,
    "The Admin API speaks TLS 1.3",
    fix="Set KONG_NGINX_ADMIN_SSL_PROTOCOLS=TLSv1.3 on the proxies.",
    stage=Stage.AFTER,
)
def tls_version(scene: Scene) -> Answer:
    """The handshakes were of TLS 1.3."""
    require_fleet(scene)
    views = [view for view in scene.gateways.get() if view.shown.protocol]
    return failed_if((f"{v.name}: {v.shown.protocol}" for v in views if v.shown.protocol != "TLSv1.3"), "TLS 1.3")


@check(
    "session-resumption",
    CATEGORY,
    Severity.ERROR,
    "The Admin API resumes no TLS sessions",
    fix=f"Set {' and '.join(OFF)} to off: a resumed session skips the check of the client certificate for a day.",
    stage=Stage.AFTER,
)
def session_resumption(scene: Scene) -> Answer:
    """Tickets and session cache are both off."""
    environment = proxy_settings(scene)
    return failed_if(
        (f"{name} is not off" for name in OFF if environment.get(name) != "off"), "tickets and cache off"
    )


def proxy_settings(scene: Scene) -> dict[str, str]:
    """Return the environment of the proxies' container; NotApplicable where Konverge does not deploy them."""
    deployment = require_deployment(scene)
    containers = deployment["spec"]["template"]["spec"].get("containers") or ()
    proxy = next((c for c in containers if c.get("name") == "proxy"), containers[0] if containers else {})
    return {entry["name"]: str(entry.get("value", "")) for entry in proxy.get("env") or ()}


@check(
    "client-verification",
    CATEGORY,
    Severity.ERROR,
    "The Admin API lets nobody in without a certificate",
    fix="Set KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT=on, and no Admin listener without ssl.",
    stage=Stage.AFTER,
)
def client_verification(scene: Scene) -> Answer:
    """Client verification is on, and no listener speaks plain HTTP beyond the loopback."""
    settings = proxy_settings(scene)
    wrong = []
    if settings.get("KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT") != "on":
        wrong.append("KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT is not on")
    for listener in filter(None, map(str.strip, settings.get("KONG_ADMIN_LISTEN", "").split(","))):
        if " ssl" not in listener and not listener.startswith(("127.", "[::1]", "off")):
            wrong.append(f"KONG_ADMIN_LISTEN has {listener!r} without ssl")
    return failed_if(wrong, "verified")


@check(
    "key-store",
    CATEGORY,
    Severity.INFO,
    "Private keys are sealed at rest",
    fix="spec.identity.store.kind: sealed; docs/howto/sealed-keys.md. Without it, encrypt Secrets in etcd.",
    stage=Stage.AFTER,
)
def key_store(scene: Scene) -> Answer:
    """The fleet keeps its keys in sealed objects."""
    fleet = require_fleet(scene)
    kind = fleet.spec.identity.store.kind
    return passed(kind) if kind == "sealed" else failed("the keys are kept in plain Secrets")


@check(
    "proxies-clock",
    CATEGORY,
    Severity.ERROR,
    "The clocks of this machine and of the proxies agree",
    fix="Set the clocks of the nodes with NTP: a proxy that is behind refuses a certificate that was just issued.",
    stage=Stage.AFTER,
)
def proxies_clock(scene: Scene) -> Answer:
    """The Date header of every proxy is close to our clock."""
    require_fleet(scene)
    told = [(view.skew_seconds, view.name) for view in scene.gateways.get() if view.skew_seconds is not None]
    if not told:
        return skipped("no proxy told its time")
    skew, name = max(told, key=lambda pair: abs(pair[0]))
    return judge_skew(skew, f"proxy {name}")
