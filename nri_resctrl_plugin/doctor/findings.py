"""What the doctor says: one finding for each rung of the ladder, and what all of them come to.

Owns: the values. Must not know: how anything is found, or how it is printed.

Rules:
    1. What is not well says what that means and how it is mended; the mend can be pasted as it is.
    2. A rung of which nothing can be told, since one below it is broken, is skipped: that is no failure.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from attrs import frozen

__all__ = ["Diagnosis", "Finding", "Level", "fail", "ok", "skip", "warn"]

SCHEMA: Final = 1


class Level(Enum):
    """How well a rung is."""

    OK = "ok"
    WARN = "warn"
    """It works, with something to know."""
    FAIL = "fail"
    """Nothing can be monitored before this is mended."""
    SKIP = "skip"
    """It cannot be told before another rung is mended."""


@frozen
class Finding:
    """What was found of one rung.

    Attributes:
        rung: Its name.
        level: How well it is.
        found: What was seen.
        meaning: What follows from that; empty where it is well.
        fix: What to do, line by line: sentences, commands, texts for a file.
    """

    rung: str
    level: Level
    found: str
    meaning: str = ""
    fix: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the finding in types that `json` knows."""
        return {
            "rung": self.rung,
            "level": self.level.value,
            "found": self.found,
            "meaning": self.meaning,
            "fix": list(self.fix),
        }


@frozen
class Diagnosis:
    """All findings, from the ground up.

    Attributes:
        findings: In the order of the ladder.
        library: It was asked about the library alone, without a container runtime.
    """

    findings: tuple[Finding, ...]
    library: bool = False

    @property
    def failed(self) -> tuple[str, ...]:
        """The rungs that must be mended."""
        return tuple(each.rung for each in self.findings if each.level is Level.FAIL)

    @property
    def usable(self) -> bool:
        """Whether groups can be made and filled here, now."""
        return not self.failed

    def as_json(self) -> dict[str, object]:
        """Return the diagnosis in types that `json` knows."""
        return {
            "schema": SCHEMA,
            "usable": self.usable,
            "library": self.library,
            "failed": list(self.failed),
            "rungs": [each.as_json() for each in self.findings],
        }


def ok(rung: str, found: str) -> Finding:
    """Return the finding of a rung that is well."""
    return Finding(rung, Level.OK, found)


def warn(rung: str, found: str, meaning: str, *fix: str) -> Finding:
    """Return the finding of a rung that works, with something to know."""
    return Finding(rung, Level.WARN, found, meaning, fix)


def fail(rung: str, found: str, meaning: str, *fix: str) -> Finding:
    """Return the finding of a rung that must be mended."""
    return Finding(rung, Level.FAIL, found, meaning, fix)


def skip(rung: str, why: str) -> Finding:
    """Return the finding of a rung of which nothing can be told yet."""
    return Finding(rung, Level.SKIP, why)
