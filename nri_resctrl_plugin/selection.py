"""Which pods get groups: by namespace and by label.

Owns: the choice, and which sandboxes were left out by it. Must not know: what becomes of those chosen.

Rules:
    1. What is not selected is not seen by the pod table: no group, no event, no counter.
    2. Only RUN, START and Synchronize choose, since they carry the pod. Stops and removals go by the
       sandbox's id: what was left out stays left out, whatever a later word says of its labels.
    3. A sandbox of which nothing was heard is not left out: its pod may be told later.
    4. Memory is bounded by the sandboxes that live and are left out: a Synchronize begins afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox

__all__ = ["Selection"]


class Selection:
    """The choice of one configuration.

    Args:
        config: `namespaces` and `pod_labels` count.
    """

    def __init__(self, config: ResctrlPluginConfig) -> None:
        self._namespaces = frozenset(config.namespaces)
        self._labels = dict(config.pod_labels)
        self._left_out: set[str] = set()

    def listed(
        self, pods: Sequence[PodSandbox], containers: Sequence[Container]
    ) -> tuple[list[PodSandbox], list[Container]]:
        """Choose among everything that the runtime lists; containers go with their pods."""
        self._left_out = {pod.id for pod in pods if not self._selects(pod)}
        return (
            [pod for pod in pods if pod.id not in self._left_out],
            [each for each in containers if each.pod_sandbox_id not in self._left_out],
        )

    def runs(self, pod: PodSandbox) -> bool:
        """Choose a pod that an event carries."""
        if not self._selects(pod):
            self._left_out.add(pod.id)
        return pod.id not in self._left_out

    def starts(self, pod: PodSandbox | None, container: Container) -> bool:
        """Choose a container by its pod, or where the event carries none, by what is known of its sandbox."""
        return self.runs(pod) if pod is not None else container.pod_sandbox_id not in self._left_out

    def knows(self, sandbox_id: str) -> bool:
        """Tell whether a sandbox was not left out."""
        return sandbox_id not in self._left_out

    def forget(self, sandbox_id: str) -> bool:
        """Forget a sandbox that is removed; return whether it was not left out."""
        known = self.knows(sandbox_id)
        self._left_out.discard(sandbox_id)
        return known

    def _selects(self, pod: PodSandbox) -> bool:
        """Tell whether a pod has one of the namespaces and all of the labels."""
        if self._namespaces and pod.namespace not in self._namespaces:
            return False
        return all(pod.labels.get(key) == value for key, value in self._labels.items())
