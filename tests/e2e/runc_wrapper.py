"""Stands between containerd's shim and runc, and edits the bundle of a container that is about to be created.

Owns: two edits that let one machine show the shapes of others. Must not know: anything but the OCI bundle. It
runs in a process of its own (`python -I -S runc_wrapper.py <edits> <runc> <runc's arguments>`).

Edits, comma separated:
    expand-slices: a cgroup path `slice:prefix:name`, which only a running systemd understands, becomes the
        directory that systemd would make: `/a.slice/a-b.slice/prefix-name.scope`.
    drop-resources: resource settings go, all but the device rules. containerd always sets cpu shares, and
        runc refuses where the cgroup v2 hierarchy has no cpu controller.
"""

from __future__ import annotations

import json
import os
import sys

__all__ = ["edit_bundle", "expand_slice"]


def expand_slice(path: str) -> str:
    """Return the directory that systemd makes for `slice:prefix:name`; any other path as it is."""
    parts = path.split(":")
    if len(parts) != 3 or not parts[0].endswith(".slice"):
        return path
    words = parts[0].removesuffix(".slice").split("-")
    slices = ["-".join(words[: n + 1]) + ".slice" for n in range(len(words))]
    return "/" + "/".join([*slices, f"{parts[1]}-{parts[2]}.scope"])


def edit_bundle(config: dict[str, dict[str, object]], edits: set[str]) -> None:
    """Edit an OCI configuration in place."""
    linux = config.get("linux", {})
    if "expand-slices" in edits:
        linux["cgroupsPath"] = expand_slice(str(linux.get("cgroupsPath", "")))
    if "drop-resources" in edits:
        kept = linux.get("resources")
        linux["resources"] = {"devices": kept.get("devices", [])} if isinstance(kept, dict) else {}


def _main(edits: str, runc: str, *arguments: str) -> None:
    if "create" in arguments and "--bundle" in arguments:
        file = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")  # noqa: PTH118 - `pathlib` would double the start-up time
        with open(file) as stream:  # noqa: PTH123 - as above
            config = json.load(stream)
        edit_bundle(config, set(edits.split(",")))
        with open(file, "w") as stream:  # noqa: PTH123 - as above
            json.dump(config, stream)
    os.execv(runc, [runc, *arguments])  # noqa: S606 - replacing itself is its purpose


if __name__ == "__main__":
    _main(*sys.argv[1:])
