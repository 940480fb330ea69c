"""Which node the node lane is on: the one value that holds everything a machine has of its own.

Owns: `NodeSite` and its file. Must not know: what runs there.

Rules:
    1. A scenario takes from here whatever differs between a guest and a rack: programs, prefix, root.
    2. The name of every group that a run makes begins with `run`, and nobody else's does: that is how they
       are found and removed, whatever happened.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from attrs import frozen
from cattrs.preconf.json import make_converter

from tests.e2e.packages import Tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cattrs.preconf.json import JsonConverter

__all__ = ["SITE_FILE", "NodeSite"]

SITE_FILE: Final = "RESCTRL_NODE_SITE"
"""Environment variable: the site's file. Where it is set, this process is on the node."""


@frozen(kw_only=True)
class NodeSite:
    """A machine with root, resctrl and programs.

    Attributes:
        tools: containerd and what goes with it, each proven to run here.
        run: Begins the name of every group of this run; unique to it.
        resctrl_root: Where resctrl is mounted.
        directory: For sockets, logs and event files. Its path is short: a socket's must be under 108 bytes.
    """

    tools: Tools
    run: str
    resctrl_root: Path
    directory: Path

    @property
    def prefix(self) -> str:
        """Begins the names of the plugin's groups."""
        return f"{self.run}pod_"

    @property
    def others_prefix(self) -> str:
        """Begins the names of groups that stand for somebody else's: no sweep of the plugin hits them."""
        return f"{self.run}others_"

    @property
    def program(self) -> Path:
        """The installed program: installing puts it beside the interpreter."""
        return Path(sys.executable).parent / "nri-resctrl-plugin"

    @staticmethod
    def is_here(environ: Mapping[str, str] = os.environ) -> bool:
        """Tell whether this process is on a node."""
        return bool(environ.get(SITE_FILE))

    @classmethod
    def present(cls, environ: Mapping[str, str] = os.environ) -> Self | None:
        """Return the site that this process is on, or None where it is on no node."""
        named = environ.get(SITE_FILE)
        return cls.load(Path(named)) if named else None

    @classmethod
    def load(cls, file: Path) -> Self:
        """Return the site that a file describes."""
        return _converter().loads(file.read_text(encoding="utf-8"), cls)

    def save(self, file: Path) -> None:
        """Describe the site in a file."""
        file.write_text(_converter().dumps(self), encoding="utf-8")


def _converter() -> JsonConverter:
    converter = make_converter()
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    return converter
