"""The rungs of the container runtime: the plugin's packages, the NRI socket, which runtime, which version.

Owns: what is known of runtimes and their versions, and how NRI is turned on. Must not know: resctrl.

Rules:
    1. A version is what the running executable itself says; it is only asked where it is root's own, in our
       mount namespace or in that of process 1 (`Process.trusted`).
"""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from attrs import frozen

from nri_resctrl_plugin.doctor.access import INITIAL_PID
from nri_resctrl_plugin.doctor.findings import fail, ok, warn

if TYPE_CHECKING:
    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host, Process

__all__ = ["CONTAINERD_DROP_IN", "CRIO_DROP_IN", "Runtime", "nri", "packages", "runtime", "runtimes"]

_PACKAGES: Final = ("betterproto2", "cattrs", "grpclib", "structlog", "yaml")

_NAMES: Final = {"containerd": "containerd", "crio": "CRI-O"}
_OLDEST: Final = {"containerd": (1, 7), "CRI-O": (1, 26)}
"""The first version of each with today's NRI."""
_NRI_BY_DEFAULT: Final = {"containerd": (2, 0), "CRI-O": (1, 30)}
_CRIO_TELLS_PIDS: Final = (1, 36)
_STRANGE: Final = "it is not seen to be root's and outside of containers"
_VERSION: Final = re.compile(r"\bv?(\d+)\.(\d+)\.\d+")

CONTAINERD_DROP_IN: Final = """\
version = {version}
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  disable_connections = false
  socket_path = "{socket}"
"""
"""A file for /etc/containerd/conf.d."""

CRIO_DROP_IN: Final = """\
[crio.nri]
enable_nri = true
"""
"""A file for /etc/crio/crio.conf.d."""


@frozen
class Runtime:
    """A container runtime that runs here.

    Attributes:
        name: `containerd` or `CRI-O`.
        version: Major and minor, or None if it cannot be told.
        told: The version as it says it, or why it cannot be told.
    """

    name: str
    version: tuple[int, int] | None
    told: str


def runtimes(host: Host) -> list[Runtime]:
    """Return the runtimes among the processes that can be seen."""
    found: dict[str, Runtime] = {}
    for process in host.processes(*_NAMES):
        each = _ask(host, process)
        if each.name not in found or found[each.name].version is None:
            found[each.name] = each
    return list(found.values())


def _ask(host: Host, process: Process) -> Runtime:
    name = _NAMES[process.name]
    if not process.trusted:
        return Runtime(name, None, f"process {process.pid} is not asked: {_STRANGE}")
    try:
        said = host.call(process.directory / "exe")
    except (OSError, subprocess.SubprocessError) as error:
        return Runtime(name, None, f"process {process.pid} does not tell: {error}")
    match = _VERSION.search(said)
    if match is None:
        return Runtime(name, None, f"process {process.pid} says {said[:80]!r}")
    return Runtime(name, (int(match[1]), int(match[2])), match[0].removeprefix("v"))


def packages(_: Host) -> Finding:
    """Tell whether the packages that the plugin needs are installed."""
    rung = "packages"
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if not missing:
        return ok(rung, "those of the extra nri are installed")
    return fail(
        rung,
        f"not installed: {', '.join(missing)}",
        "The library works without, the plugin does not.",
        "pip install 'resctrl[nri]'",
    )


def nri(host: Host) -> Finding:
    """Tell whether a runtime listens for plugins."""
    rung, path = "nri", host.nri_socket
    try:
        host.connect(host.at(path))
    except FileNotFoundError:
        meaning = "No runtime runs here, or its NRI is turned off."
        seen = runtimes(host)
        for each in seen:
            default = ".".join(map(str, _NRI_BY_DEFAULT[each.name]))
            meaning = (
                f"{each.name} runs, but does not offer NRI there; it is on by default from {default} on."
            )
        return fail(rung, f"there is no socket at {path}", meaning, *_turn_on(host, seen), *_in_a_pod(host))
    except ConnectionRefusedError:
        if not host.is_socket(path):
            return fail(
                rung,
                f"{path} is no socket",
                "Something else was put there.",
                f"rm {path}, and restart the runtime",
            )
        return fail(
            rung,
            f"nobody listens at {path}",
            "The runtime that made the socket is gone, or was started anew with another one.",
            "systemctl restart containerd    (or crio)",
            *_in_a_pod(host),
        )
    except PermissionError:
        return fail(
            rung, f"{path} may not be used", "It is root's: who may use it rules the runtime.", "run as root"
        )
    except OSError as error:
        return fail(
            rung, f"{path} does not answer: {error}", "The runtime hangs, or is very busy.", "look at its log"
        )
    return ok(rung, f"a runtime listens at {path}")


def _turn_on(host: Host, seen: list[Runtime]) -> list[str]:
    """Say how NRI is turned on: for the runtime that runs, or for both."""
    names = [each.name for each in seen] or list(_NRI_BY_DEFAULT)
    lines = []
    for name in names:
        version = next((each.version for each in seen if each.name == name), None) or (1, 7)
        if name == "containerd":
            number = 3 if version >= (2, 0) else 2
            lines += [
                "containerd: put this into /etc/containerd/conf.d/nri.toml",
                *_indented(CONTAINERD_DROP_IN.format(version=number, socket=host.nri_socket)),
                "with the same version as /etc/containerd/config.toml, where at the top must stand",
                '    imports = ["/etc/containerd/conf.d/*.toml"]',
                "then: systemctl restart containerd    (running pods stay)",
            ]
        else:
            lines += [
                "CRI-O: put this into /etc/crio/crio.conf.d/10-nri.conf",
                *_indented(CRIO_DROP_IN),
                "then: systemctl restart crio    (running pods stay)",
            ]
    return lines


def _in_a_pod(host: Host) -> list[str]:
    return [
        f"in a pod: give the container the host's directory {host.nri_socket.parent}, never the socket file"
    ]


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


def runtime(host: Host) -> Finding:
    """Tell which runtime runs, and whether its NRI is new enough."""
    rung = "runtime"
    seen = runtimes(host)
    if not seen:
        return _none(host)
    for each in seen:
        if each.version is not None and each.version < _OLDEST[each.name]:
            oldest = ".".join(map(str, _OLDEST[each.name]))
            return fail(
                rung,
                f"{each.name} {each.told}",
                "It does not have today's NRI.",
                f"upgrade to {each.name} {oldest} or newer",
            )
    found = ", ".join(f"{each.name} {each.told}" for each in seen)
    if any(each.name == "CRI-O" and each.version and each.version < _CRIO_TELLS_PIDS for each in seen):
        return warn(
            rung,
            found,
            "CRI-O before 1.36 does not tell a container's process, so its cgroup is taken on trust.",
            "it works; with CRI-O 1.36 or newer the cgroup is looked up at the process itself",
        )
    if any(each.version is None for each in seen):
        return warn(
            rung,
            found,
            "Whether it is new enough cannot be told.",
            "containerd must be 1.7 or newer, CRI-O 1.26 or newer: containerd --version, crio --version",
        )
    return ok(rung, found)


def _none(host: Host) -> Finding:
    rung, found = "runtime", "neither containerd nor CRI-O is among the processes"
    mend = "install containerd 1.7 or newer (2.0 has NRI on by default), or CRI-O 1.26 or newer"
    try:
        host.connect(host.at(host.nri_socket))
    except OSError:
        if host.namespace("pid") == INITIAL_PID:
            return fail(rung, found, "There is no runtime whose pods could be monitored.", mend)
        return warn(rung, found, "In this PID namespace a runtime could not be seen.", "see pid-namespace")
    return warn(rung, f"{found}, but one listens for plugins", "Its version cannot be told.", mend)
