"""What a lane leaves to look at: the resctrl tree, the kernel's words, logs and events.

Owns: gathering. Must not know: whether anything went well.

Rules:
    1. Gathering fails nothing: what cannot be had is a line in its file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["gather", "tree"]

_LARGEST: Final = 4096
"""Bytes shown of a file of the tree at most."""
_COUNTERS: Final = "mon_data"


def gather(root: Path, directory: Path, artifacts: Path, moment: str) -> None:
    """Write everything into the artifacts.

    Args:
        root: Where resctrl is mounted.
        directory: The node scenarios' own files.
        artifacts: Where to.
        moment: Begins the names of what is gathered more than once.
    """
    (artifacts / f"{moment}-resctrl.txt").write_text(tree(root), encoding="utf-8")
    (artifacts / f"{moment}-last_cmd_status.txt").write_text(
        _text(root / "info/last_cmd_status"), encoding="utf-8"
    )
    (artifacts / "dmesg.txt").write_text(_dmesg(), encoding="utf-8")
    for file in (*directory.glob("*.jsonl"), *directory.glob("*.log")):
        with contextlib.suppress(OSError):
            shutil.copy(file, artifacts / file.name)


def tree(root: Path) -> str:
    """Return a listing: each group with its small files, the counters by name only.

    Reading a counter of a busy machine takes interrupts on other processors, so they are left alone.
    """
    lines = []
    for path in _walk(root):
        name = path.relative_to(root)
        if path.is_dir():
            lines.append(f"{name}/")
        elif _COUNTERS in name.parts:
            lines.append(f"{name}")
        else:
            text = _text(path).rstrip("\n").replace("\n", "\n    ")
            lines.append(f"{name}:\n    {text}" if text else f"{name}: (empty)")
    return "\n".join(lines) + "\n"


def _walk(root: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(root):
        below.sort()
        yield Path(directory)
        yield from (Path(directory, it) for it in sorted(files))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_LARGEST)
    except OSError as error:
        return f"({error})"


def _dmesg() -> str:
    try:
        done = subprocess.run(["dmesg"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return f"({error})\n"
    return done.stdout or f"({done.stderr.strip()})\n"
