"""Metrics and health of the deployed program, held against the kernel's own files."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.node.patience import eventually
from tests.node.workloads import FORKS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.node.node import Node
    from tests.node.program import Program


async def test_metrics_are_what_the_kernel_says(node: Node, program: Program) -> None:
    """Each series lies between the file's value before and after the scrape, and goes with its pod."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program.start(f"--health-addr={address}")
    await program.synchronized()
    await eventually("the program is ready", lambda: _get(address, "/readyz")[0] == 200)
    async with node.kubelet() as kubelet:
        pod = await kubelet.pod()
        await kubelet.run(pod, FORKS)
        await program.told(pod, "Exists 1/1")
        group = node.group(pod)
        await eventually("the workload moves bytes", lambda: min(_traffic(group).values()) > 0)

        before = _traffic(group)
        status, text = await asyncio.to_thread(_get, address, "/metrics")
        after = _traffic(group)
        assert status == 200
        families = {it.name: it for it in text_string_to_metric_families(text)}
        told = {
            (sample.labels["domain_name"], event): sample.value
            for event in ("mbm_total_bytes", "mbm_local_bytes")
            for sample in families[f"l3_{event}"].samples
            if sample.labels["k8s_pod_uid"] == pod.uid
        }
        assert told.keys() == before.keys()
        assert all(before[key] <= value <= after[key] for key, value in told.items()), (before, told, after)
        states = {it.labels["state"]: it.value for it in families["nri_resctrl_pods"].samples}
        assert states == {"exists": 1, "failed": 0}
        [starts] = [
            it.value
            for it in families["nri_resctrl_request_seconds"].samples
            if it.name.endswith("_count") and it.labels["event"] == "StartContainer"
        ]
        assert starts == 1

        await kubelet.remove(pod)
        await program.told(pod, "removed")
        _, text = await asyncio.to_thread(_get, address, "/metrics")
        assert pod.uid not in text


def _traffic(group: Path) -> dict[tuple[str, str], int]:
    """Read the kernel's own files."""
    return {
        (domain.name, event): int((domain / event).read_text())
        for domain in (group / "mon_data").iterdir()
        for event in ("mbm_total_bytes", "mbm_local_bytes")
    }


def _get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
