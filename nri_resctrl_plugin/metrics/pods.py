"""The counters of every pod's groups, read when somebody asks for them.

Owns: which series there are. Must not know: HTTP, how a group is made.

Rules:
    1. Nothing is kept from one scrape to the next: the series of a pod that is gone are gone with it.
    2. What has no number has no series: a word of the kernel is counted as missing, never told as 0.
    3. A group that cannot be read costs only its own series.
    4. A domain's own file is exported, its sub-domains are not: a sum over domains must not count twice. What
       a sub-domain does not tell is missing all the same: the kernel leaves it out of the sum in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from nri_resctrl_plugin.events import Exists, PodResctrlAddOrUpdate
from nri_resctrl_plugin.metrics.names import MetricName, MetricNames, labels_of, metric_name
from nri_resctrl_plugin.model import PodUid
from resctrl import EventKind, FsProvider, ReadError, Resctrl, ResctrlError, Unassigned, Unavailable, Value
from resctrl.names import MON_GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resctrl import Capacity, GroupReading, Reading

__all__ = ["PodCollector", "PodView"]


@frozen
class PodView:
    """What is known of the pods at the moment of a scrape.

    Attributes:
        pods: As last told.
        resctrl: Where their groups are.
    """

    pods: Mapping[PodUid, PodResctrlAddOrUpdate]
    resctrl: Resctrl[FsProvider]


class PodCollector(Collector):
    """Reads each pod's groups at each scrape; blocks, so it is for a thread of its own.

    Args:
        view: Tells what is known of the pods now.
        names: By whose names the counters are told.
    """

    def __init__(self, view: Callable[[], PodView], names: MetricNames = MetricNames.RESCTRL) -> None:
        self._view = view
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """Yield every family, each once."""
        view = self._view()
        counters = _Counters(view.resctrl, self._names)
        for pod_uid, told in view.pods.items():
            if isinstance(told.group_state, Exists):
                for path in (told.group_state.path, *told.group_state.others):
                    counters.add_group(pod_uid, path)
        yield from counters.families.values()
        yield from _of_pods(view)
        yield _labelled(
            "nri_resctrl_readings_missing",
            "Counters that told no number in this scrape, by the reason.",
            "reason",
            {state: counters.missing[state] for state in ("unavailable", "unassigned", "error", "group")},
        )
        yield from _of_rmids(view)

    def describe(self) -> list[Metric]:
        """Return nothing: what there will be is known only when it is read."""
        return []


@define
class _Counters:
    """The counters of groups, as far as they were read.

    Attributes:
        resctrl: Where the groups are.
        names: By whose names they are told.
        families: The series, by how they are told.
        missing: How many told no number, by the reason.
    """

    resctrl: Resctrl[FsProvider]
    names: MetricNames
    families: dict[MetricName, Metric] = field(factory=dict)
    missing: Counter[str] = field(factory=Counter)

    def add_group(self, pod_uid: PodUid, path: Path) -> None:
        """Read a group."""
        try:
            reading: GroupReading = self.resctrl.read_group(path)
        except ResctrlError:
            self.missing["group"] += 1
            return
        control_group = _control_group(self.resctrl.config.root, path)
        for (domain, event), counter in reading.values.items():
            if not isinstance(counter, Value):
                self.missing[_why(counter)] += 1
                continue
            if domain.parent is not None:
                continue
            name = metric_name(domain, event, self.names)
            family = self.families.get(name)
            if family is None:
                family = self.families[name] = _family(name)
            suffix = "_total" if name.kind is EventKind.COUNTER else ""
            labels = labels_of(name, domain, pod_uid, control_group)
            family.add_sample(name.name + suffix, labels, counter.amount)


def _why(reading: Reading) -> str:
    match reading:
        case Unavailable():
            return "unavailable"
        case Unassigned():
            return "unassigned"
        case ReadError() | Value():
            return "error"


def _family(name: MetricName) -> Metric:
    match name.kind:
        case EventKind.COUNTER:
            return CounterMetricFamily(name.name, name.text, labels=name.labels)
        case EventKind.GAUGE:
            return GaugeMetricFamily(name.name, name.text, labels=name.labels)
        case EventKind.UNKNOWN:
            return UnknownMetricFamily(name.name, name.text, labels=name.labels)


def _control_group(root: Path, group: Path) -> str:
    """Return the control group that a monitoring group stands below; "" for the default one."""
    holder = group.parent.parent if group.parent.name == MON_GROUPS else group.parent
    return "" if holder == root else holder.name


def _of_pods(view: PodView) -> Iterator[Metric]:
    states = Counter(
        "exists" if isinstance(it.group_state, Exists) else "failed" for it in view.pods.values()
    )
    yield _labelled(
        "nri_resctrl_pods",
        "Pods, by the state of their group.",
        "state",
        {state: states[state] for state in ("exists", "failed")},
    )
    total = sum(it.total_containers for it in view.pods.values())
    reconciled = sum(it.reconciled_containers for it in view.pods.values())
    yield _labelled(
        "nri_resctrl_containers",
        "Containers that run, by whether all of their threads are known to be in their pod's group.",
        "state",
        {"reconciled": reconciled, "partial": total - reconciled},
    )


def _of_rmids(view: PodView) -> Iterator[Metric]:
    try:
        capacity: Capacity = view.resctrl.capacity()
    except ResctrlError:
        return  # not mounted, or no monitoring: readiness tells it
    for name, text, value in (
        ("nri_resctrl_rmids", "RMIDs that the machine has.", capacity.num_rmids),
        ("nri_resctrl_rmids_in_use", "RMIDs that groups hold, anybody's.", capacity.in_use),
        ("nri_resctrl_rmids_ours", "RMIDs that groups with our prefix hold.", capacity.ours),
        ("nri_resctrl_rmids_free", "RMIDs that no group holds; some may still be in limbo.", capacity.free),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
