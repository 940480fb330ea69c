"""Metrics and health of a deployed plugin, on one address: `/metrics`, `/livez`, `/readyz`.

Owns: the ways in. Must not know: what the plugin decides. It needs prometheus-client (extra `metrics`).
"""

from __future__ import annotations

from nri_resctrl_plugin.metrics.instruments import Instruments, TimedHandler, counted
from nri_resctrl_plugin.metrics.names import MetricNames
from nri_resctrl_plugin.metrics.pods import PodCollector, PodView
from nri_resctrl_plugin.metrics.server import HealthAddress, HealthServer, HealthServerError, Probe

__all__ = [
    "HealthAddress",
    "HealthServer",
    "HealthServerError",
    "Instruments",
    "MetricNames",
    "PodCollector",
    "PodView",
    "Probe",
    "TimedHandler",
    "counted",
]
