"""The ladder: all rungs in their order, each climbed whatever became of those below.

Owns: which rungs there are, and for whom. Must not know: what a rung looks at.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nri_resctrl_plugin.doctor.access import confinement, permission, pid_namespace, user_namespace
from nri_resctrl_plugin.doctor.cgroup import cgroups
from nri_resctrl_plugin.doctor.findings import Diagnosis, fail
from nri_resctrl_plugin.doctor.groups import features, mount, probe, rmids
from nri_resctrl_plugin.doctor.kernel import boot, kernel
from nri_resctrl_plugin.doctor.machine import platform, processor, virtualisation
from nri_resctrl_plugin.doctor.neighbours import neighbours
from nri_resctrl_plugin.doctor.runtime import nri, packages, runtime
from resctrl import ResctrlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nri_resctrl_plugin.doctor.findings import Finding
    from nri_resctrl_plugin.doctor.host import Host

__all__ = ["diagnose"]


def diagnose(host: Host, *, library: bool = False, with_probe: bool = False) -> Diagnosis:
    """Look at every rung.

    Args:
        host: The machine.
        library: Only what the library alone needs: no container runtime.
        with_probe: Also make a group and remove it. Its RMID then rests for a second or two.
    """
    findings = (_climb(name, rung, host) for name, rung in _rungs(library=library, with_probe=with_probe))
    return Diagnosis(tuple(findings), library)


def _rungs(*, library: bool, with_probe: bool) -> Iterator[tuple[str, Callable[[Host], Finding]]]:
    yield "platform", platform
    yield "virtualisation", virtualisation
    yield "processor", processor
    yield "kernel", kernel
    yield "boot", boot
    yield "mount", mount
    yield "features", features
    yield "rmids", rmids
    yield "permission", permission
    yield "confinement", confinement
    yield "user-namespace", user_namespace
    yield "pid-namespace", partial(pid_namespace, library=library)
    if with_probe:
        yield "probe", probe
    yield "cgroups", partial(cgroups, library=library)
    if not library:
        yield "packages", packages
        yield "nri", nri
        yield "runtime", runtime
    yield "neighbours", neighbours


def _climb(name: str, rung: Callable[[Host], Finding], host: Host) -> Finding:
    try:
        return rung(host)
    except (ResctrlError, OSError) as error:
        hint = error.hint if isinstance(error, ResctrlError) else None
        return fail(name, str(error), "It cannot be told.", hint or "dmesg | tail    may say why")
