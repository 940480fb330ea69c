"""The five lines that lead the kernel's resctrl code to the software model, and how they get into a tree.

Owns: the hooks and their application. Must not know: where the tree came from, or how it is built.

Rules:
    1. Every hook must find its place exactly once, or nothing at all is written: a tree that differs from
       what the hooks were written for must not become an image that half works.
    2. The file system's code is not touched: only where registers are read or written, and one call at start.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from tests.kernel.errors import HookError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["HOOKS", "MODEL_DIRECTORY", "Hook", "Place", "apply_hooks", "install_model"]

MODEL_DIRECTORY: Final = "arch/x86/kernel/cpu/resctrl"
"""Where the model's files stand in the kernel tree."""


class Place(Enum):
    """Where a hook's text goes in relation to its anchor."""

    BEFORE = "before"
    AFTER = "after"
    INSTEAD = "instead of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One edit of one file.

    Attributes:
        name: What the hook is for, as errors call it.
        file: The file, relative to the kernel tree.
        anchor: Literal text that must stand in the file exactly once.
        place: Where the text goes.
        text: What is put there, with its line ends.
    """

    name: str
    file: str
    anchor: str
    place: Place
    text: str

    def applied_to(self, before: str, file: Path) -> str:
        """Return the file's text with the hook in it.

        Raises:
            HookError: The anchor is not there exactly once, or the hook is already in.
        """
        if self.text in before:
            raise HookError(self.name, file, 0, "the hook is already there")
        matches = before.count(self.anchor)
        if matches != 1:
            raise HookError(self.name, file, matches, f"{self.anchor!r} found {matches} times, not once")
        match self.place:
            case Place.BEFORE:
                new = self.text + self.anchor
            case Place.AFTER:
                new = self.anchor + self.text
            case Place.INSTEAD:
                new = self.text
        return before.replace(self.anchor, new)


HOOKS: Final = (
    Hook(
        name="compile the model",
        file=f"{MODEL_DIRECTORY}/Makefile",
        anchor="obj-$(CONFIG_X86_CPU_RESCTRL)\t+= ctrlmondata.o pseudo_lock.o\n",
        place=Place.AFTER,
        text="obj-$(CONFIG_X86_CPU_RESCTRL)\t+= fakerdt.o\n",
    ),
    Hook(
        name="route registers to the model",
        file=f"{MODEL_DIRECTORY}/internal.h",
        anchor="#endif /* _ASM_X86_RESCTRL_INTERNAL_H */\n",
        place=Place.BEFORE,
        text='#include "fakerdt.h"\n\n',
    ),
    Hook(
        name="start the model",
        file=f"{MODEL_DIRECTORY}/core.c",
        anchor=(
            "static int __init resctrl_late_init(void)\n{\n\tstruct rdt_resource *r;\n\tint state, ret;\n\n"
        ),
        place=Place.AFTER,
        text="\tfakerdt_init();\n\n",
    ),
    Hook(
        name="declare the model's register write",
        file="arch/x86/include/asm/resctrl.h",
        anchor="DECLARE_PER_CPU(struct resctrl_pqr_state, pqr_state);\n",
        place=Place.AFTER,
        text="void fakerdt_wrmsr(u32 msr, u64 val);\n",
    ),
    Hook(
        name="show the scheduler's switches to the model",
        file="arch/x86/include/asm/resctrl.h",
        anchor="wrmsr(MSR_IA32_PQR_ASSOC, rmid, closid);",
        place=Place.INSTEAD,
        text="fakerdt_wrmsr(MSR_IA32_PQR_ASSOC, ((u64)closid << 32) | rmid);",
    ),
)
"""Written for Linux 6.12; from 6.16 on the file system lives in fs/resctrl and these places have moved."""


def apply_hooks(tree: Path, hooks: Sequence[Hook] = HOOKS) -> None:
    """Put every hook into an unpacked kernel tree, or none of them.

    Args:
        tree: Top of the kernel tree.
        hooks: What to put in; several may concern one file.

    Raises:
        HookError: A hook's place is not there exactly once, its file is absent, or it was applied before.
    """
    texts: dict[Path, str] = {}
    for hook in hooks:
        file = tree / hook.file
        if file not in texts:
            try:
                texts[file] = file.read_text(encoding="utf-8")
            except FileNotFoundError as error:
                raise HookError(hook.name, file, 0, "there is no such file") from error
        texts[file] = hook.applied_to(texts[file], file)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")


def install_model(tree: Path, model: Sequence[Path]) -> None:
    """Copy the model's files into an unpacked kernel tree.

    Raises:
        FileNotFoundError: The tree has no place for them.
    """
    for file in model:
        shutil.copyfile(file, tree / MODEL_DIRECTORY / file.name)
