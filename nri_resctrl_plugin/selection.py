"""Which pods get groups: by namespace and by label.

Owns: the choice, and what it was of each sandbox. Must not know: what becomes of those chosen.

Rules:
    1. What is not selected is not seen by the pod table: no group, no event, no counter.
    2. RUN and Synchronize choose, the first time they tell of a sandbox. That holds until its removal,
       whatever a later word says of its labels: a pod that was chosen must be heard of to its end.
    3. A sandbox of which neither was heard is not left out, since its pod may be told later. A START that
       carries its pod is judged by it then, for itself alone: it may come late, after the removal.
    4. Memory is bounded by the sandboxes that live: a removal forgets, and so does a Synchronize without it.
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
        self._chosen: dict[str, bool] = {}

    def listed(
        self, pods: Sequence[PodSandbox], containers: Sequence[Container]
    ) -> tuple[list[PodSandbox], list[Container]]:
        """Choose among everything that the runtime lists; containers go with their pods."""
        self._chosen = {pod.id: self._chosen.get(pod.id, self._selects(pod)) for pod in pods}
        return (
            [pod for pod in pods if self._chosen[pod.id]],
            [each for each in containers if self.knows(each.pod_sandbox_id)],
        )

    def runs(self, pod: PodSandbox) -> bool:
        """Choose a pod that runs."""
        return self._chosen.setdefault(pod.id, self._selects(pod))

    def starts(self, pod: PodSandbox | None, container: Container) -> bool:
        """Choose a container by what is known of its sandbox, or by its pod where nothing is."""
        if pod is None or pod.id in self._chosen:
            return self.knows(pod.id if pod is not None else container.pod_sandbox_id)
        return self._selects(pod)

    def knows(self, sandbox_id: str) -> bool:
        """Tell whether a sandbox was not left out."""
        return self._chosen.get(sandbox_id, True)

    def forget(self, sandbox_id: str) -> bool:
        """Forget a sandbox that is removed; return whether it was not left out."""
        return self._chosen.pop(sandbox_id, True)

    def _selects(self, pod: PodSandbox) -> bool:
        """Tell whether a pod has one of the namespaces and all of the labels."""
        if self._namespaces and pod.namespace not in self._namespaces:
            return False
        return all(pod.labels.get(key) == value for key, value in self._labels.items())
