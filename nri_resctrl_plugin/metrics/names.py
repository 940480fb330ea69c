"""What counters are called in metrics.

Owns: the names, their types, the labels. Must not know: where values come from.

Rules:
    1. The names and labels are those of the NRI plugins project's resctrl monitor and of goresctrl's
       `pkg/monitor`, so that dashboards made for them show our data.
    2. A counter that this table does not know keeps its own name and is of unknown type: nobody may take the
       rate of what may be no counter.
    3. On request the three counters of a cache have cAdvisor's names, types and `node_id`, so that dashboards
       made for it show our data. The pod and the control group are told beside, as cAdvisor's container is
       not ours to tell.
"""

from __future__ import annotations

import re
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attrs import frozen

from resctrl import Domain, EventKind, event_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CADVISOR_LABELS", "LABELS", "MetricName", "MetricNames", "encodable", "labels_of", "metric_name"]

LABELS: Final = (
    "domain_id",
    "domain_name",
    "k8s_pod_uid",
    "resctrl_control_group",
    "resctrl_group_source",
)
"""The labels of every counter's series."""

CADVISOR_LABELS: Final = ("node_id", "k8s_pod_uid", "resctrl_control_group")
"""Those of the series that have cAdvisor's names."""

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
_CADVISOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "llc_occupancy": "container_llc_occupancy_bytes",
        "mbm_total_bytes": "container_memory_bandwidth_bytes",
        "mbm_local_bytes": "container_memory_bandwidth_local_bytes",
    }
)
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")


class MetricNames(Enum):
    """By whose names the counters of a cache are told."""

    RESCTRL = "resctrl"
    CADVISOR = "cadvisor"


@frozen
class MetricName:
    """How one event of one kind of domain is exported.

    Attributes:
        name: Without the `_total` that a counter's series get.
        kind: Its type.
        text: What it means.
        labels: The labels of its series.
    """

    name: str
    kind: EventKind
    text: str
    labels: tuple[str, ...] = LABELS


def metric_name(domain: Domain, event: str, names: MetricNames = MetricNames.RESCTRL) -> MetricName:
    """Return how an event of a domain is exported."""
    if names is MetricNames.CADVISOR and domain.kind == "L3" and event in _CADVISOR:
        return MetricName(_CADVISOR[event], EventKind.GAUGE, _NAMES[event][1], CADVISOR_LABELS)
    prefix = _PREFIXES.get(domain.kind, domain.kind.lower())
    name, text = _NAMES.get(event, (event, f"The kernel's counter {event}."))
    text = encodable(text)
    return MetricName(_NO_NAME.sub("_", f"{prefix}_{name}"), event_kind(event), text)


def encodable(text: str) -> str:
    """Return a text as UTF-8 has it: names of directories are any bytes, and one must not cost the scrape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def labels_of(name: MetricName, domain: Domain, pod_uid: str, control_group: str) -> dict[str, str]:
    """Return the labels of one series.

    `domain_id` is the number as the directory writes it (`00`), `domain_name` the directory, `node_id` the
    number without zeros (`0`): cAdvisor counts the domains, which is the same where no number is left out.
    """
    number = domain.name.rpartition("_")[2]
    values = {
        "domain_id": number,
        "domain_name": domain.name,
        "k8s_pod_uid": pod_uid,
        "resctrl_control_group": control_group,
        "resctrl_group_source": "pod",
        "node_id": str(domain.id),
    }
    return {label: encodable(values[label]) for label in name.labels}
