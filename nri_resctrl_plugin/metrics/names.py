"""What counters are called in metrics.

Owns: the names, their types, the labels. Must not know: where values come from.

Rules:
    1. The names and labels are those of the NRI plugins project's resctrl monitor and of goresctrl's
       `pkg/monitor`, so that dashboards made for them show our data.
    2. A counter that this table does not know keeps its own name and is of unknown type: nobody may take the
       rate of what may be no counter.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attrs import frozen

from resctrl import Domain, EventKind, event_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LABELS", "MetricName", "domain_labels", "encodable", "metric_name"]

LABELS: Final = (
    "domain_id",
    "domain_name",
    "k8s_pod_uid",
    "resctrl_control_group",
    "resctrl_group_source",
)
"""The labels of every counter's series."""

_PREFIXES: Final[Mapping[str, str]] = MappingProxyType({"PERF_PKG": "perf"})
_NAMES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "llc_occupancy": ("llc_occupancy_bytes", "Bytes of the last-level cache that hold the pod's lines."),
        "mbm_total_bytes": ("mbm_total_bytes", "Bytes moved between this cache and all memory."),
        "mbm_local_bytes": ("mbm_local_bytes", "Bytes moved between this cache and its own node's memory."),
        "core_energy": ("core_energy_joules", "Energy that the cores used for the pod."),
        "activity": ("activity_farads", "Dynamic capacitance that the pod switched."),
    }
)
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")


@frozen
class MetricName:
    """How one event of one kind of domain is exported.

    Attributes:
        name: Without the `_total` that a counter's series get.
        kind: Its type.
        text: What it means.
    """

    name: str
    kind: EventKind
    text: str


def metric_name(domain: Domain, event: str) -> MetricName:
    """Return how an event of a domain is exported."""
    prefix = _PREFIXES.get(domain.kind, domain.kind.lower())
    name, text = _NAMES.get(event, (event, f"The kernel's counter {event}."))
    text = encodable(text)
    return MetricName(_NO_NAME.sub("_", f"{prefix}_{name}"), event_kind(event), text)


def encodable(text: str) -> str:
    """Return a text as UTF-8 has it: names of directories are any bytes, and one must not cost the scrape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def domain_labels(domain: Domain) -> tuple[str, str]:
    """Return `domain_id`, the number as the directory writes it (`00`), and `domain_name`, the directory."""
    return domain.name.rpartition("_")[2], domain.name
