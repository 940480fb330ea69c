"""`nri-resctrl-plugin run`: the plugin as a program, a caller with a cadence.

Owns: what a deployed plugin needs around it: signals, the cadence of retries, where events go, the control
socket, how it ends. Must not know: what the plugin decides.

Rules:
    1. SIGTERM and SIGINT end it with status 0 and leave groups in place, unless `--cleanup-on-exit`.
    2. A runtime that is not there is waited for; a configuration that cannot work ends it at once.
    3. What the machine lacks is told before the first pod comes, with the mend; a wrong flag before that.
    4. A plugin that no runtime ever took does not end well, however quietly the connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import structlog
from attrs import evolve, fields, frozen

from nri_resctrl_plugin.cli import memory
from nri_resctrl_plugin.cli.begin import begin
from nri_resctrl_plugin.cli.exits import Exit, Stop, flush_standard_output
from nri_resctrl_plugin.cli.health import Health
from nri_resctrl_plugin.cli.link import RuntimeLink, runtime_link, speak_ahead
from nri_resctrl_plugin.cli.logs import append_to
from nri_resctrl_plugin.cli.sink import LineSink
from nri_resctrl_plugin.config import ResctrlPluginConfig
from nri_resctrl_plugin.control import ControlError, ControlServer
from nri_resctrl_plugin.errors import ConfigError
from nri_resctrl_plugin.jsonl import event_lines
from nri_resctrl_plugin.nri.errors import ConnectionLostError, UnreachableError
from nri_resctrl_plugin.plugin import ResctrlPlugin
from nri_resctrl_plugin.reports import AuditReport
from resctrl import FsProvider, RealFs, Resctrl, ResctrlConfig, ResctrlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.nri.ahead import Ahead
    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

__all__ = ["run"]

_AUDIT_COUNTS: Final = tuple(each for each in fields(AuditReport) if each.name != "failures")


def run(
    options: Namespace,
    environment: Mapping[str, str],
    *,
    parse: Callable[[Sequence[str]], Namespace],
    ahead: Ahead | None = None,
) -> int:
    """Serve until a signal comes.

    Args:
        options: The flags.
        environment: Where a runtime that launches us puts our identity and connection.
        parse: Parses flags that come before those of the command line.
        ahead: Who has spoken on that connection already; where nobody has, somebody will.

    Returns:
        The exit status.

    Raises:
        Stop: It cannot begin, or cannot go on.
    """
    log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")
    ahead = ahead or speak_ahead(environment)
    options, config = begin(options, environment, parse, ahead)
    try:
        return _run(options, runtime_link(options, environment, ahead), config)
    except Stop as stop:
        if ahead is not None:
            log.error("ended", reason=str(stop))  # noqa: TRY400 - the reason says it all
        raise


def _run(options: Namespace, link: RuntimeLink, config: ResctrlPluginConfig) -> int:
    if options.cleanup_on_exit and not config.group_prefix:
        raise Stop(
            Exit.CONFIG, "--cleanup-on-exit with an empty group prefix would remove everybody's groups"
        )
    provider = _provider(options, config)
    health = Health(options.health_addr, options.metric_names)
    resctrl = health.counted(_resctrl(provider, config))
    _preflight(resctrl, auto_mount=config.auto_mount)
    memory.keep()
    with _event_stream(options.events) as stream:
        return asyncio.run(_serve(_Parts(options, link, config, resctrl, health), stream))


@frozen
class _Parts:
    """What the program is made of."""

    options: Namespace
    link: RuntimeLink
    config: ResctrlPluginConfig
    resctrl: Resctrl[FsProvider]
    health: Health


def _resctrl(provider: FsProvider, config: ResctrlPluginConfig) -> Resctrl[FsProvider]:
    return Resctrl.with_provider(
        provider, ResctrlConfig(root=config.resctrl_root, group_prefix=config.group_prefix)
    )


def _provider(options: Namespace, config: ResctrlPluginConfig) -> FsProvider:
    if options.resctrl == "real":
        return RealFs()
    from resctrl.testing import FakeFs  # noqa: PLC0415 - only the fake needs the test kit

    try:
        return FakeFs(
            root=config.resctrl_root,
            num_rmids=options.fake_rmids,
            alive=lambda tid: Path("/proc", str(tid)).exists(),
        )
    except ValueError as error:
        raise Stop(Exit.USAGE, f"--fake-rmids {options.fake_rmids}: {error}") from error


def _preflight(resctrl: Resctrl[FsProvider], *, auto_mount: bool) -> None:
    """End at once where no pod could ever get a group; warn where somebody can still mend it."""
    log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")
    try:
        support = resctrl.detect_support()
    except ResctrlError as error:
        raise Stop(Exit.UNSUPPORTED, str(error)) from error
    if not support.kernel_support:
        raise Stop(
            Exit.UNSUPPORTED,
            "this machine has no resctrl: /proc/filesystems does not list it (is it a processor with RDT, "
            "QoS or MPAM, not virtualised, its kernel built for it?); --resctrl=fake works anywhere",
        )
    root = resctrl.config.root
    if not support.mounted:
        if not auto_mount:
            log.warning("resctrl_not_mounted", root=str(root), mend=f"mount -t resctrl resctrl {root}")
        return
    if not support.writable:
        raise Stop(Exit.PERMISSION, f"{root}/tasks cannot be written: run as root in the host's namespaces")
    if not support.monitoring:
        raise Stop(
            Exit.UNSUPPORTED, f"this machine has resctrl but cannot monitor: there is no {root}/info/L3_MON"
        )


@contextlib.contextmanager
def _event_stream(target: str) -> Iterator[IO[str]]:
    if target == "-":
        if sys.stdout is None:
            raise Stop(Exit.IO, "standard output is closed: give a path for --events")
        try:
            yield sys.stdout
        finally:
            flush_standard_output()
        return
    try:
        stream = open(append_to(target), "a", encoding="utf-8")  # noqa: PTH123, SIM115 - closed below
    except OSError as error:
        raise Stop(Exit.IO, f"cannot write events to {target!r}: {error.strerror}") from error
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):  # a last flush that fails was told line by line
            stream.close()


class _Plugin(ResctrlPlugin[FsProvider]):
    """The plugin as the program has it.

    Its settings have been read: those of a launched one hold the program's flags as well. And a list of
    everything that exists leaves much memory behind it.
    """

    _tidying: asyncio.Task[None] | None = None

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Take the runtime's time limit alone."""
        await super().configure(evolve(runtime, config=""))

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Take in everything that exists; when what follows from it is done, give memory back."""
        await super().synchronize(pods, containers)
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy())

    async def _tidy(self) -> None:
        await self.settled()
        memory.give_back()


async def _serve(parts: _Parts, stream: IO[str]) -> int:
    options, link, resctrl, health = parts.options, parts.link, parts.resctrl, parts.health
    log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    unread = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reader_gone() -> None:
        loop.call_soon_threadsafe(unread.set)

    sink = LineSink(stream, reader_gone, health.lost)
    async with contextlib.AsyncExitStack() as stack:
        plugin = await stack.enter_async_context(_Plugin.with_resctrl(parts.config, resctrl))
        stub = link.stub(health.timed(plugin))
        stack.push_async_callback(stub.close)
        await stack.enter_async_context(health.served(plugin, link))
        await _open_control(options, plugin, stack)
        line_of = event_lines()
        plugin.subscribe(lambda event: sink.put(line_of(event)))
        duties: set[asyncio.Task[Any]] = {
            asyncio.create_task(stub.run(), name="nri"),
            asyncio.create_task(stop.wait(), name="signal"),
            asyncio.create_task(unread.wait(), name="unread"),
        }
        if options.retry_interval > 0:
            duties.add(asyncio.create_task(_retry(plugin, options.retry_interval), name="retry"))
        if options.audit_interval > 0:
            duties.add(asyncio.create_task(_audit(plugin, options.audit_interval), name="audit"))
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
    if not await asyncio.to_thread(sink.close):
        log.warning("events_unread", reason="the reader is too slow; what is queued is lost")
    if options.cleanup_on_exit:
        # A runtime that launched us may have given another prefix.
        in_force = _resctrl(resctrl.fs, plugin.config)
        await asyncio.to_thread(_clean_up, in_force, plugin.config, log)
    _raise_what_ended(done, link, unread=unread.is_set())
    return Exit.OK


async def _open_control(
    options: Namespace, plugin: ResctrlPlugin[FsProvider], stack: contextlib.AsyncExitStack
) -> None:
    if options.control:
        try:
            await stack.enter_async_context(ControlServer(plugin, Path(options.control)))
        except ControlError as error:
            raise Stop(Exit.CONFIG, str(error)) from error


async def _retry(plugin: ResctrlPlugin[FsProvider], interval: float) -> None:
    """Try again what was refused or is incomplete, on a cadence; the plugin itself has none."""
    log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.retry")
    while True:
        await asyncio.sleep(interval)
        report = await plugin.retry_all_once()
        gained = report.orphans_deleted + report.groups_created + report.containers_reconciled
        tell = log.info if gained else log.debug
        tell(
            "retried",
            orphans_deleted=report.orphans_deleted,
            groups_created=report.groups_created,
            containers_reconciled=report.containers_reconciled,
            capacity_exhausted=report.capacity_exhausted,
            containers_partial=report.containers_partial,
        )
        for failure in report.failures:
            log.debug("retry_failed", subject=failure.subject.value, id=failure.id, error=str(failure.error))


async def _audit(plugin: ResctrlPlugin[FsProvider], interval: float) -> None:
    """Look whether everything is as it is believed to be, on a cadence."""
    log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin.audit")
    while True:
        await asyncio.sleep(interval)
        report = await plugin.audit_once()
        tell = log.info if report.found_something else log.debug
        tell("audited", **{each.name: getattr(report, each.name) for each in _AUDIT_COUNTS})
        for failure in report.failures:
            log.debug("audit_failed", subject=failure.subject.value, id=failure.id, error=str(failure.error))


def _clean_up(resctrl: Resctrl[FsProvider], config: ResctrlPluginConfig, log: FilteringBoundLogger) -> None:
    try:
        report = resctrl.cleanup_all(below_control_groups=config.class_placement)
    except ResctrlError as error:
        log.error("exit_cleanup_failed", error=str(error))  # noqa: TRY400 - the message says it all
    else:
        log.info("exit_cleanup", removed=report.removed, removal_failures=report.removal_failures)


def _raise_what_ended(done: set[asyncio.Task[Any]], link: RuntimeLink, *, unread: bool) -> None:
    """Turn the end of a duty into the program's end."""
    if unread:
        raise Stop(Exit.IO, "nobody reads the events any more")
    for duty in done:
        error = duty.exception()
        if isinstance(error, UnreachableError | ConnectionLostError):
            raise Stop(Exit.LOST, str(error)) from error
        if isinstance(error, ConfigError):
            raise Stop(Exit.CONFIG, str(error)) from error
        if error is not None:
            raise error
        if duty.get_name() == "nri" and not link.served:
            raise Stop(Exit.LOST, link.reason)
