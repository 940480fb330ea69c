"""The installed program on a node: started, asked over its control socket, killed; judged from outside.

Owns: the program's lives, its event lines, its log, its control socket. Must not know: what is right.

Rules:
    1. It is the console script in a process of its own; nothing of the plugin is imported here.
    2. Its retries and audits are the caller's: its own cadences are off.
    3. Each life has files of its own; they stay for the artifacts.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, frozen

from tests.node.patience import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.pods import Pod
    from tests.node.site import NodeSite

__all__ = ["Program", "Refused"]


class Refused(Exception):  # noqa: N818 - the program's answer, not a failure of the test
    """The program answered a call with an error.

    Attributes:
        error: The error's class, by name.
    """

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"{error}: {message}")
        self.error = error


@define
class JsonLines:
    """A growing file of JSON Lines, each line read once."""

    file: Path
    _read: int = 0
    _lines: list[dict[str, Any]] = Factory(list)

    def all(self) -> Sequence[dict[str, Any]]:
        """Return every whole line so far; a line that is no JSON object stands under "text"."""
        if self.file.exists():
            with self.file.open("rb") as stream:
                stream.seek(self._read)
                whole = stream.read().rpartition(b"\n")[0]
            if whole:
                self._read += len(whole) + 1
                self._lines += [_parsed(line) for line in whole.decode().split("\n")]
        return self._lines


@frozen
class _Files:
    """Where one life leaves what."""

    events: JsonLines
    log: JsonLines


class Program:
    """One plugin: at most one life at a time, all with the same prefix and control socket.

    Args:
        site: The node.
        nri_socket: Where the runtime listens.
        name: Begins its files' names.
    """

    _lives = 0

    def __init__(self, site: NodeSite, nri_socket: Path, name: str) -> None:
        self._site = site
        self._nri_socket = nri_socket
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._files: _Files | None = None
        self.control = site.directory / f"{name}.sock"

    # --- life ---

    def start(self, *flags: str) -> None:
        """Begin a life; see `synchronized` for when it serves."""
        assert self._process is None, "it runs"
        self._lives += 1
        base = self._site.directory / f"{self._name}-{self._lives}"
        self._files = _Files(
            JsonLines(base.with_suffix(".events.jsonl")), JsonLines(base.with_suffix(".log.jsonl"))
        )
        command = [
            str(self._site.program), "run", "--resctrl=real",
            f"--resctrl-root={self._site.resctrl_root}", f"--group-prefix={self._site.prefix}",
            f"--socket-path={self._nri_socket}", f"--control={self.control}",
            f"--events={self._files.events.file}", "--log-format=json",
            "--retry-interval=0", "--audit-interval=0", *flags,
        ]  # fmt: skip
        with self._files.log.file.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def synchronized(self, times: int = 1) -> None:
        """Wait until the runtime has told this life everything so many times."""

        def told() -> bool:
            assert self.runs, f"the program ended:\n{self.log_text}"
            return len(self.records("synchronized")) >= times

        await eventually(f"the program was synchronized {times} times", told)

    def kill(self) -> None:
        """End this life with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End this life with SIGTERM, which leaves groups in place. Return the exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it if it runs; what it logged goes to standard output, where a failed test shows it."""
        if self._process is not None:
            self.kill()
        sys.stdout.write(self.log_text)

    @property
    def runs(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.poll() is None

    # --- what it tells ---

    @property
    def events(self) -> Sequence[dict[str, Any]]:
        """The event lines of this life."""
        return self._files.events.all() if self._files is not None else ()

    @property
    def log_text(self) -> str:
        """The log of this life."""
        return "".join(f"{json.dumps(it)}\n" for it in self._log)

    def records(self, event: str) -> list[dict[str, Any]]:
        """Return this life's log records of one kind."""
        return [it for it in self._log if it.get("event") == event]

    def complaints(self) -> list[dict[str, Any]]:
        """Return what this life logged as an error, tracebacks included."""
        return [it for it in self._log if it.get("level") in {"error", "critical"} or "text" in it]

    def words(self, pod: Pod) -> list[str]:
        """Return what was told of a pod in this life, each event in a few words."""
        return [_in_words(line) for line in self.events if line["pod_uid"] == pod.uid]

    async def told(self, pod: Pod, words: str) -> None:
        """Wait until the latest event of a pod is this: `Exists 1/2`, reconciled of total; or `removed`."""
        await eventually(
            f"the last that is told of {pod.uid} is {words}", lambda: self.words(pod)[-1:] == [words]
        )

    # --- what it is asked ---

    async def call(self, call: str, **arguments: str) -> Any:
        """Ask over the control socket.

        Raises:
            Refused: It answered with an error.
        """
        reader, writer = await asyncio.open_unix_connection(str(self.control))
        try:
            writer.write(json.dumps({"call": call, **arguments}).encode() + b"\n")
            answer = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer["ok"]:
            raise Refused(answer["error"], answer["message"])
        return answer["result"]

    async def snapshot(self) -> dict[str, str]:
        """Ask for the state of every live pod: its uid, and a few words."""
        return {uid: _in_words(event) for uid, event in (await self.call("snapshot")).items()}

    async def audited(self) -> int:
        """Ask for an audit, in which nothing may fail; returns how many threads were astray."""
        report = await self.call("audit")
        assert report["failures"] == []
        astray: int = report["threads_astray"]
        return astray

    @property
    def _log(self) -> Sequence[dict[str, Any]]:
        return self._files.log.all() if self._files is not None else ()

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.send_signal(number)
        try:
            return process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {"text": line}
    return value if isinstance(value, dict) else {"text": line}


def _in_words(line: dict[str, Any]) -> str:
    if line["type"] == "Removed":
        return "removed"
    state = line["group_state"]["type"]
    return f"{state} {line['reconciled_containers']}/{line['total_containers']}"
