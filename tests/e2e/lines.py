"""What the program tells as JSON Lines, in a few words.

Owns: reading its output while it is written. Must not know: who wrote it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from tests.e2e.waiting import until

if TYPE_CHECKING:
    from tests.e2e.pods import Pod

__all__ = ["Lines"]


@frozen
class Lines:
    """What the program has told so far.

    Attributes:
        file: Where to.
    """

    file: Path

    def all(self) -> list[dict[str, Any]]:
        """Return every whole line."""
        text = self.file.read_text() if self.file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def of(self, pod: Pod) -> list[str]:
        """Return what was told of one pod, each event in a few words."""
        return [_in_words(line) for line in self.all() if line["pod_uid"] == pod.uid]

    async def until_last(self, pod: Pod, words: str) -> None:
        """Wait until the last event of a pod is this."""
        await until(f"the last line of {pod.uid} is: {words}", lambda: self.of(pod)[-1:] == [words])


def _in_words(line: dict[str, Any]) -> str:
    if line["type"] == "Removed":
        return "removed"
    state = line["group_state"]["type"]
    return f"{state} {line['reconciled_containers']}/{line['total_containers']}"
