"""Lanes: none is green for having done nothing, or a part."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import lanes
from tests.conftest import shortfalls
from tests.lanes import LANES, expected, expected_scenarios
from tests.worlds import WORLDS

HERE = Path(__file__).parents[2]
MAX_SKIPS = 5


def run(*arguments: str) -> tuple[int, str]:
    """Run this Python on a module."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=HERE, capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, done.stdout + done.stderr


def session(*arguments: str) -> tuple[int, str]:
    """Run a session of this project's tests."""
    return run("pytest", "-q", "-p", "no:cacheprovider", *arguments)


def test_the_tables_are_what_is_collected() -> None:
    """docs/runbooks/lanes.md has the numbers of the tests that there are."""
    assert run("tests.lanes") == (0, "")


def test_few_scenarios_are_skipped() -> None:
    """Over all scenarios and worlds at most five are left out, each with its reason in the docs."""
    sums = expected()
    assert (
        0
        <= len(WORLDS) * sums["fake"]
        - sums["fake"]
        - sum(expected_scenarios("kernel").values())
        - sums["hardware"]
        <= MAX_SKIPS
    )
    page = lanes.PAGE.read_text(encoding="utf-8")
    assert (
        page.count("| the world ")
        == 2 * sums["fake"] - sum(expected_scenarios("kernel").values()) - sums["hardware"]
    )


def _asks_for_its_world(node: ast.AST) -> bool:
    """Tell whether a piece of a scenario, or of a world, looks at which world it is, or leaves itself out."""
    match node:
        case ast.Constant(value=str(text)):
            return text in WORLDS
        case ast.Attribute(value=ast.Name(id="world") | ast.Attribute(attr="world"), attr="name"):
            return True
        case ast.Attribute(attr=name):
            return name in {"lacks", "skip", "skipif", "skipTest", "xfail", "importorskip"}
        case ast.Name(id=name) | ast.alias(name=name):
            return name in {"FakeWorld", "RealWorld", "WORLDS", "LISTED_SKIPS"} or name.endswith("Site")
        case ast.Call(func=ast.Name(id="isinstance" | "hasattr" | "getattr" | "type"), args=[first, *_]):
            return "world" in ast.unparse(first).split(".")
    return False


def _asking(text: str) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(text)) if _asks_for_its_world(node)]


def test_bodies_are_the_same_in_every_world() -> None:
    """No scenario asks which world it is in, or skips by itself; no world looks at its own name."""
    for file in sorted(HERE.glob("tests/scenarios/*.py")):
        assert _asking(file.read_text(encoding="utf-8")) == [], file
    for file in sorted(HERE.glob("tests/worlds/*.py")):
        text = file.read_text(encoding="utf-8")
        assert "import pytest" not in text, file
        compared = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare)]
        assert [it for it in compared if ".name " in it or it.endswith(".name")] == [], file


@pytest.mark.parametrize(
    "text",
    [
        "world.name", "scene.world.name", "world.lacks", "x == 'kernel'", "pytest.skip('no')",
        "pytest.mark.skipif(True)", "pytest.xfail()", "isinstance(world, Fake)", "hasattr(scene.world, 'x')",
        "getattr(world, 'kernel')", "from tests.worlds import FakeWorld",
        "from tests.worlds.real import KernelSite",
    ],
)  # fmt: skip
def test_a_body_that_asks_is_found(text: str) -> None:
    """The search above is not blind."""
    assert _asking(text)


def test_tables_are_read_as_they_are_drawn() -> None:
    """What is drawn from a tally is what is read from the page, and only between the marks."""
    tally = lanes.Tally()
    tally.scenarios.update({("test_a.py", "fake"): 3, ("test_a.py", "kernel"): 2, ("test_b.py", "fake"): 4})
    tally.lanes.update({"kernel": 5, "containerd": 6})
    tally.skips.append(lanes.Skip("test_x[kernel]", "kernel", "the world 'kernel' is odd"))
    empty = f"| all | 9 | 9 | 9 |\n{lanes._BEGIN}{lanes._END}| `node` | 9 |\n"
    page = lanes.drawn(empty, tally.text())
    assert lanes.drawn(page, tally.text()) == page
    assert expected(page) == {"fake": 7, "kernel": 5, "hardware": 0, "containerd": 6}
    assert expected_scenarios("kernel", page) == {"test_a.py": 2, "test_b.py": 0}
    assert "| `test_x[kernel]` | the world 'kernel' is odd |" in page
    with pytest.raises(ValueError, match="lacks the lines"):
        lanes.drawn("nothing", "")


def test_a_lane_that_did_not_run_is_named() -> None:
    """Of the required lanes those with another number of passed tests than is written are told."""
    wanted = {"fake": 7, "kernel": 5}
    assert shortfalls([], dict.fromkeys(LANES, 0), wanted) == []
    assert shortfalls(["fake", "kernel"], wanted, wanted) == []
    for passed in (0, 4, 6):
        (text,) = shortfalls(["fake", "kernel"], {"fake": 7, "kernel": passed}, wanted)
        assert text.startswith(f"--require=kernel: {passed} tests passed in this lane, but 5 is what")
    (text,) = shortfalls(["node"], {"node": 0}, wanted)
    assert "no number is what" in text


def test_a_session_that_ran_nothing_of_a_required_lane_fails() -> None:
    """All tests pass, and the session fails all the same, and says why."""
    code, output = session("tests/unit/test_model.py", "--require=hardware")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "--require=hardware: 0 tests passed in this lane" in output


@pytest.mark.parametrize(
    ("directory", "files"),
    [
        ("tests/e2e", ["test_containerd_plugin.py", "test_containerd_start.py"]),
        ("tests/kernel", ["test_fidelity.py", "test_guest.py", "test_scenarios.py"]),
        ("tests/node", ["test_churn.py", "test_kills.py", "test_lane.py", "test_serving.py"]),
    ],
)
def test_whoever_names_a_lane_gets_its_tests(directory: str, files: list[str]) -> None:
    """A directory that was named is not green without the tests that need its machine."""
    code, output = session(directory, "--collect-only")
    assert code == pytest.ExitCode.OK, output
    assert [file for file in files if f"{directory}/{file}::" not in output] == []


def test_a_lanes_session_demands_the_lane() -> None:
    """`nox -s e2e_...` without arguments requires its lane: no guest, or no runtime, is not green."""
    tree = ast.parse((HERE / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {it.name: ast.unparse(it) for it in tree.body if isinstance(it, ast.FunctionDef)}
    for lane in ("containerd", "kernel", "node"):
        assert f"_run_lane(session, '{lane}', " in sessions[f"e2e_{lane}"]
    assert "session.posargs or [f'--require={name}']" in sessions["_run_lane"]


def test_an_unknown_lane_is_a_mistake() -> None:
    """A slip of the pen does not require nothing."""
    code, output = session("tests/unit/test_model.py", "--require=kernle")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "no lane ['kernle']" in output


@pytest.mark.parametrize(("more", "code"), [(0, pytest.ExitCode.OK), (1, pytest.ExitCode.TESTS_FAILED)])
def test_a_session_that_ran_the_lane_is_green(tmp_path: Path, more: int, code: int) -> None:
    """Exactly when as many passed as the page says; here one that has a single file of scenarios."""
    name = "test_s5_cleanup.py"
    count = expected_scenarios("fake")[name] + more
    page, whole = tmp_path / "lanes.md", expected()["fake"]
    text = lanes.PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace(f"| all | {whole} |", f"| all | {count} |"), encoding="utf-8")
    program = f"""
import pathlib, pytest, sys
from tests import lanes
lanes.PAGE = pathlib.Path({str(page)!r})
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--require=fake", "tests/scenarios/{name}"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == code, done.stdout
    assert ("--require=fake: " in done.stdout) == bool(more)


@pytest.mark.parametrize("name", ["kernel", "hardware"])
def test_a_world_that_is_named_is_not_skipped(name: str) -> None:
    """Where there is no such machine its scenarios fail, with the reason."""
    code, output = session("tests/scenarios/test_s5_cleanup.py", f"--world={name}", "-x")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert f"no world '{name}' here: " in output
