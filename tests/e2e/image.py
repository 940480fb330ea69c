"""A container image of one static busybox, as a docker archive: written in Python, pulled from nowhere.

Owns: the archive's format. Must not know: who imports it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_image"]

APPLETS = ("cat", "echo", "false", "kill", "ls", "mkdir", "ps", "sh", "sleep", "true")

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Machine names of uname(2) that the image format calls otherwise."""


def write_image(archive: Path, busybox: Path, reference: str, command: tuple[str, ...]) -> None:
    """Write an image with /bin/busybox and its usual names.

    Args:
        archive: The file to write, a docker archive (`manifest.json`, a configuration, one layer).
        busybox: A static busybox for this machine.
        reference: The image's name and tag.
        command: What a container of it runs by default, argv style.
    """
    layer = _layer(busybox.read_bytes())
    machine = platform.machine()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "busybox"}],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, content in ((name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add_file(tar, member, content, 0o644)


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for directory, mode in (
            ("bin", 0o755),
            ("dev", 0o755),
            ("etc", 0o755),
            ("proc", 0o555),
            ("tmp", 0o1777),
        ):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", busybox, 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
