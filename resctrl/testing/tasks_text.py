"""How the kernel reads what is written to a `tasks` file.

Owns: the grammar of a task list. Must not know: tasks or groups.

Source: rdtgroup_tasks_write (the loop over strsep), strim, kstrtoint with base 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PAGE_SIZE", "SPACE", "elements", "kstrtoint", "kstrtoull"]

PAGE_SIZE: Final = 4096
"""kernfs's atomic_write_len on x86: one write(2) may not be longer."""

SPACE: Final = b" \t\n\v\f\r\xa0"
"""What strim() takes off: the kernel's isspace() is Latin-1's."""

_INT_MAX: Final = 2**31 - 1
_INT_MIN: Final = -(2**31)
_NUMBER: Final = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\n?")


def kstrtoull(text: bytes) -> int | None:
    """Return the number that the kernel reads with base 0, or None where it finds none; no upper limit.

    A leading 0 means octal and 0x hexadecimal; a plus sign and one last newline are allowed, blanks are not.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    if hexadecimal is not None:
        return int(hexadecimal, 16)
    return int(octal, 8) if octal is not None else int(decimal)


def kstrtoint(text: bytes) -> int | None:
    """Return the number that the kernel reads as an int, or None where it finds none or it does not fit."""
    if text.startswith(b"-"):
        value = None if text.startswith(b"-+") else kstrtoull(text[1:])
        value = -value if value is not None else None
    else:
        value = kstrtoull(text)
    return value if value is not None and _INT_MIN <= value <= _INT_MAX else None


def elements(chunk: bytes) -> Iterator[tuple[bytes, int | None]]:
    r"""Yield the elements of one write in order, each with its number or None.

    The list is split at commas and each element trimmed. It ends at a NUL, and, silently, where an element
    begins with a newline: `1,` and `1,\n2` are the list of 1, while `1,,2` has an empty second element.
    """
    rest: bytes | None = chunk.split(b"\0", 1)[0]
    while rest and not rest.startswith(b"\n"):
        element, comma, tail = rest.partition(b",")
        rest = tail if comma else None
        element = element.strip(SPACE)
        yield element, kstrtoint(element)
