"""Kubernetes objects to one Kong configuration, as the ingress controller would make it.

Pure: no file, no network, no clock. :func:`render` translates a snapshot as a whole, :class:`Translator` keeps one
and redoes only what a change touches, :func:`render_fallback` leaves out what the gateway has refused.
"""

from konverge.translate.fallback import FallbackPlan, plan_fallback, render_fallback
from konverge.translate.problems import ObjectRef, Problem
from konverge.translate.rendered import Rendered
from konverge.translate.settings import Settings, for_cluster
from konverge.translate.translator import Translator, render

__all__ = [
    "FallbackPlan",
    "ObjectRef",
    "Problem",
    "Rendered",
    "Settings",
    "Translator",
    "for_cluster",
    "plan_fallback",
    "render",
    "render_fallback",
]
