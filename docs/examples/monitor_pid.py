"""Watch one process, without Kubernetes: `python monitor_pid.py PID` prints a line a second until it ends."""

import glob
import json
import sys
import time
from pathlib import Path

from resctrl import EmptyPidSetError, GroupReading, RealFs, Resctrl, ResctrlConfig, Sampler, Tid, rate


def threads(pid: int) -> list[Tid]:
    """List the threads of a process; none once it has ended."""
    return [Tid(int(Path(task).name)) for task in glob.glob(f"/proc/{pid}/task/*")]  # noqa: PTH207 - never raises


def monitor(resctrl: Resctrl[RealFs], pid: int) -> None:
    """Put the process into a group of its own, and print what it does to cache and memory."""
    group = resctrl.create_group(f"pid-{pid}")
    before: GroupReading | None = None
    try:
        with Sampler(resctrl) as sampler:
            sampler.add(group)
            while True:
                resctrl.reconcile_group(group, lambda: threads(pid))  # those born since the last look too
                reading = sampler.sample()[group]
                line: dict[str, object] = {event: reading.total(event).amount for event in reading.events}
                if before is not None:
                    line["bytes_per_second"] = rate(before, reading, "mbm_total_bytes").total
                print(json.dumps(line, default=str), flush=True)
                before = reading
                time.sleep(1)
    except EmptyPidSetError:
        print(f"process {pid} has ended", file=sys.stderr)
    finally:
        resctrl.delete_group(group)


if __name__ == "__main__":
    monitor(Resctrl(ResctrlConfig(group_prefix="watch_")), int(sys.argv[1]))
