"""Whether a group is there, as far as can be known.

Owns: that question. Must not know: what follows from the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from resctrl import FsProvider

if TYPE_CHECKING:
    from pathlib import Path

    from resctrl import Resctrl

__all__ = ["may_be_there"]

P = TypeVar("P", bound=FsProvider)


def may_be_there(resctrl: Resctrl[P], group: Path) -> bool:
    """Tell whether a group is there, or may be: one that cannot be looked at is not gone for all we know."""
    try:
        return resctrl.fs.exists(group)
    except OSError:
        return True
