"""What the program may do on a node is enough on the kernel's own resctrl, and less is not."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from tests.kernel.conftest import Boot

DEPLOY = Path(__file__).resolve().parents[2] / "docs/deploy"

# Makes a group, puts another user's thread into it, and removes it; prints what failed.
WORK = """
import json, sys
from resctrl import Resctrl, ResctrlError
resctrl, outcome = Resctrl(), {}
for name, work in {
    "create": lambda: resctrl.create_group("pod"),
    "assign": lambda: resctrl.assign_tasks(resctrl.create_group("pod"), [int(sys.argv[1])]),
    "sweep": lambda: resctrl.cleanup_all().removed,
}.items():
    try:
        outcome[name] = str(work())
    except ResctrlError as error:
        outcome[name] = type(error).__name__
print(json.dumps(outcome))
"""


def shipped_capabilities() -> set[str]:
    """Return what the DaemonSet and the unit give, which is the same."""
    (daemonset,) = [
        each
        for each in yaml.safe_load_all((DEPLOY / "kubernetes/install.yaml").read_text())
        if each["kind"] == "DaemonSet"
    ]
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    pod = set(container["securityContext"]["capabilities"]["add"])
    unit = (DEPLOY / "systemd/nri-resctrl-plugin.service").read_text()
    found = re.search("^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert found is not None
    assert {f"CAP_{name}" for name in pod} == set(found[1].split())
    return pod


def test_the_shipped_capabilities_are_enough(boot: Boot) -> None:
    """Groups are made, another user's thread is assigned, all is swept; with others or none nothing is."""
    given = ",".join(f"+{name.lower()}" for name in sorted(shipped_capabilities()))
    lines = [
        "mount -t resctrl resctrl /sys/fs/resctrl",
        "setpriv --reuid=1000 --clear-groups sleep 600 & thread=$!",
        *(
            f"setpriv --bounding-set=-all{more} --inh-caps=-all --no-new-privs "
            f'python3 -c {shlex.quote(WORK)} "$thread"'
            for more in (f",{given}", "", ",+sys_admin")
        ),
    ]
    run = boot("\n".join(["set -e", *lines]))
    assert run.status == 0, run.errors
    enough, nothing, other = (json.loads(line) for line in run.output.splitlines())
    assert enough == {
        "create": "/sys/fs/resctrl/mon_groups/pod_pod",
        "assign": "AssignmentResult(assigned=1, missing=0)",
        "sweep": "1",
    }
    for less in (nothing, other):
        assert less == {"create": "NoPermissionError", "assign": "NoPermissionError", "sweep": "0"}
