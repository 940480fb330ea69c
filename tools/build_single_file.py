"""Build the program as one executable file: a shell script, and after it a zip archive of pure Python.

Run by `nox -s single_file`. The file is made of the checkout and of the packages that are installed beside
the interpreter that runs this. It is byte-compiled for that interpreter's minor; the sources are in it too,
so that a newer Python 3 runs it as well, with a slower start.

Rules:
    1. The same inputs give the same bytes: entries are sorted, their times are fixed, and byte code is
       compared with no time.
    2. Extension modules stay out: they cannot be imported from an archive, and each package here works
       without.
    3. Each package's licence and metadata are inside.
    4. Beside it stands what it consists of, as CycloneDX.
"""

# ruff: noqa: INP001 - a script, in no package

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import py_compile
import re
import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["build"]

ROOT: Final = Path(__file__).resolve().parent.parent
NAME: Final = "nri-resctrl-plugin"
DISTRIBUTION: Final = "resctrl"
EXTRAS: Final = ("nri", "metrics")
PACKAGES: Final = ("resctrl", "nri_resctrl_plugin")
LEFT_OUT: Final = frozenset({"tzdata"})
"""Data that no code of ours asks for."""

_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_LONGEST_NAME: Final = 80
"""Some packages have the whole text of their licence where its name belongs."""

_LICENCE: Final = re.compile(r"(licen[cs]e|notice|authors|copying)", re.IGNORECASE)


def build(target: Path, interpreters: Sequence[str] = ()) -> None:
    """Write the executable.

    Args:
        target: Where to; what is there is replaced.
        interpreters: The Pythons that it looks for, in order; this one's minor and then `python3` if none.
    """
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    files = dict(sorted({**_ours(), **_theirs()}.items()))
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as output:
        output.write(_script(tuple(interpreters) or (minor, "python3")))
        with zipfile.ZipFile(output, "w") as archive:
            for name, path in files.items():
                content = path.read_bytes()
                if name.endswith(".py"):
                    _add(archive, f"{name}c", _compiled(path, name), compressed=False)
                _add(archive, name, content, compressed=True)
    Path(output.name).chmod(0o755)
    Path(output.name).replace(target)
    target.with_name(f"{target.name}.cdx.json").write_text(json.dumps(_bill(target), indent=1) + "\n")


def _ours() -> dict[str, Path]:
    """Return the checkout's own files by their name in the archive."""
    found = {
        str(path.relative_to(ROOT)): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    return found | _metadata(importlib.metadata.distribution(DISTRIBUTION)) | {"LICENSE": ROOT / "LICENSE"}


def _theirs() -> dict[str, Path]:
    """Return the files of every package that the program needs."""
    found: dict[str, Path] = {}
    for distribution in _requirements(DISTRIBUTION, EXTRAS):
        found |= _metadata(distribution)
        found |= {
            str(file): Path(str(file.locate()))
            for file in distribution.files or ()
            if file.suffix == ".py" and ".." not in file.parts and "tests" not in file.parts
        }
    return found


def _metadata(distribution: importlib.metadata.Distribution) -> dict[str, Path]:
    """Return what says which version a package has and how it is licensed."""
    return {
        str(file): Path(str(file.locate()))
        for file in distribution.files or ()
        if ".dist-info/" in str(file) and (file.name == "METADATA" or _LICENCE.search(str(file)))
    }


def _requirements(name: str, extras: Sequence[str]) -> Iterator[importlib.metadata.Distribution]:
    """Yield what a distribution needs, directly or not, each once."""
    waiting = [(name, tuple(extras))]
    seen = {name.lower(), *LEFT_OUT}
    while waiting:
        current, wanted = waiting.pop()
        for text in importlib.metadata.distribution(current).requires or ():
            requirement = Requirement(text)
            needed = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *wanted)
            )
            if needed and requirement.name.lower() not in seen:
                seen.add(requirement.name.lower())
                waiting.append((requirement.name, tuple(requirement.extras)))
                yield importlib.metadata.distribution(requirement.name)


def _bill(target: Path) -> dict[str, object]:
    """Return the bill of materials of the executable."""
    inside = sorted(_requirements(DISTRIBUTION, EXTRAS), key=lambda it: it.name.lower())
    whole = _component(importlib.metadata.distribution(DISTRIBUTION), "application")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": whole | {"hashes": [{"alg": "SHA-256", "content": digest}]}},
        "components": [_component(distribution, "library") for distribution in inside],
        "dependencies": [
            {"ref": _purl(distribution), "dependsOn": sorted(map(_purl, _direct(distribution, inside)))}
            for distribution in (importlib.metadata.distribution(DISTRIBUTION), *inside)
        ],
    }


def _component(distribution: importlib.metadata.Distribution, kind: str) -> dict[str, object]:
    said = [
        *distribution.metadata.get_all("License-Expression", ()),
        *distribution.metadata.get_all("License", ()),
    ]
    licence = said[0] if said else ""
    named = {"licenses": [{"license": {"name": licence}}]} if 0 < len(licence) < _LONGEST_NAME else {}
    return {
        "type": kind,
        "bom-ref": _purl(distribution),
        "name": distribution.name,
        "version": distribution.version,
        "purl": _purl(distribution),
        **named,
    }


def _purl(distribution: importlib.metadata.Distribution) -> str:
    return f"pkg:pypi/{distribution.name.lower().replace('_', '-')}@{distribution.version}"


def _direct(
    distribution: importlib.metadata.Distribution, inside: Sequence[importlib.metadata.Distribution]
) -> list[importlib.metadata.Distribution]:
    """Return what a distribution itself asks for, of what is inside."""
    wanted = {Requirement(text).name.lower().replace("_", "-") for text in distribution.requires or ()}
    return [it for it in inside if it.name.lower().replace("_", "-") in wanted]


def _compiled(path: Path, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "compiled"
        py_compile.compile(
            str(path), str(target), dfile=name, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip
        return target.read_bytes()


def _add(archive: zipfile.ZipFile, name: str, content: bytes, *, compressed: bool) -> None:
    entry = zipfile.ZipInfo(name, _MOMENT)
    entry.external_attr = 0o100644 << 16
    # Byte code is read at each start: what is stored plain need not be unpacked.
    entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    archive.writestr(entry, content)


def _script(interpreters: Sequence[str]) -> bytes:
    """Return the script before the archive."""
    sys.path.insert(0, str(ROOT))
    from nri_resctrl_plugin.nri import mux, wire  # noqa: PLC0415 - of the checkout
    from nri_resctrl_plugin.nri.ahead import EVENT_MASK, NRI_VERSION  # noqa: PLC0415

    identity = wire.bytes_field(1, b"resctrl") + wire.bytes_field(2, b"10")
    identity += wire.bytes_field(3, NRI_VERSION.encode())
    call = wire.bytes_field(1, b"nri.pkg.api.v1alpha1.Runtime") + wire.bytes_field(2, b"RegisterPlugin")
    call += wire.bytes_field(3, identity)
    registration = mux.frames(mux.RUNTIME_CONN, struct.pack(">IIBB", len(call), 1, 1, 0) + call)
    configure = wire.bytes_field(2, wire.int_field(2, EVENT_MASK))
    words = {
        "NAME": NAME,
        "VERSION": importlib.metadata.version(DISTRIBUTION),
        "PYTHONS": " ".join(interpreters),
        "REGISTRATION": _octal(registration),
        "CONFIGURE": _octal(configure),
        "CONFIGURE_BODY": _octal(bytes([len(configure)])),
        "CONFIGURE_FRAME": _octal(bytes([len(configure) + 10])),
    }
    template = (ROOT / "tools/single_file.sh").read_text()
    return re.sub("@([A-Z_]+)@", lambda found: words[found[1]], template).encode()


def _octal(data: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in data)


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description="Build the program as one executable file.")
    parser.add_argument("target", type=Path, nargs="?", default=ROOT / "dist/10-resctrl")
    parser.add_argument("--python", action="append", default=[], metavar="PROGRAM",
                        help="a Python to look for, by name or path; may be given several times")  # fmt: skip
    options = parser.parse_args()
    options.target.parent.mkdir(parents=True, exist_ok=True)
    build(options.target, options.python)
    size = os.stat(options.target).st_size  # noqa: PTH116 - a number, in one call
    sys.stdout.write(f"{options.target}: {size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
