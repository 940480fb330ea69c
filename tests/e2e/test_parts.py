"""The parts of the lane that need no daemon."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.e2e import runc_wrapper
from tests.e2e.apt import derive_sources
from tests.e2e.image import write_image
from tests.e2e.packages import PackageStore, Unobtainable

if TYPE_CHECKING:
    from pathlib import Path

DEB822 = """\
# A comment
Types: deb
URIs: http://example.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://example.invalid/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://example.invalid/off
Suites: bookworm
Components: main

Types: deb-src
URIs: http://example.invalid/source
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://example.invalid/commented bookworm main
deb [arch=amd64,arm64 signed-by=/k.gpg] http://example.invalid/one bookworm main contrib # why
deb http://example.invalid/vendor bookworm stable
deb-src http://example.invalid/one bookworm main
"""


def test_sources_of_the_next_release_come_from_the_machine_s_own() -> None:
    """Exactly the enabled binary sources of the release itself are turned; keys and options are kept."""
    derived = derive_sources([("a.sources", DEB822), ("b.list", ONE_LINE)], "bookworm", "trixie")
    assert [line for line in derived.splitlines() if line.startswith("Uris:")] == [
        "Uris: http://example.invalid/debian",
        "Uris: http://example.invalid/one",
    ]
    assert derived.count("Suites: trixie\n") == 2
    assert derived.count("Components: main\n") == 2
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in derived
    assert "Signed-By: /k.gpg" in derived
    assert "Architectures: amd64 arm64" in derived
    assert "bookworm" not in derived


def test_a_key_inside_the_source_file_survives() -> None:
    """A deb822 source may hold its key in line, on continuation lines, and these are kept as they are."""
    text = "Types: deb\nURIs: http://example.invalid/\nSuites: bookworm\nComponents: main\n"
    key = "Signed-By:\n -----BEGIN\n .\n abc\n"
    derived = derive_sources([("a.sources", text + key)], "bookworm", "trixie")
    assert "Signed-By: \n -----BEGIN\n .\n abc\n" in derived


def test_no_source_of_the_release_derives_nothing() -> None:
    """A machine whose sources name other suites has no next release to offer."""
    assert derive_sources([("a.sources", DEB822)], "jammy", "noble") == ""


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("a-b-podx_y.slice:cri-containerd:id", "/a.slice/a-b.slice/a-b-podx_y.slice/cri-containerd-id.scope"),
        ("a.slice:p:n", "/a.slice/p-n.scope"),
        ("/kubepods/podx/id", "/kubepods/podx/id"),
    ],
)
def test_slices_expand_as_systemd_expands_them(path: str, directory: str) -> None:
    assert runc_wrapper.expand_slice(path) == directory


def test_bundle_edits_leave_the_rest_alone() -> None:
    """Only what an edit names changes; device rules survive the loss of the other resources."""
    resources = {"devices": [{"allow": False}], "cpu": {"shares": 2}}
    config: dict[str, dict[str, object]] = {
        "process": {"args": ["/bin/sleep"]},
        "linux": {"cgroupsPath": "a.slice:p:n", "resources": resources},
    }
    runc_wrapper.edit_bundle(config, {"expand-slices", "drop-resources"})
    assert config == {
        "process": {"args": ["/bin/sleep"]},
        "linux": {"cgroupsPath": "/a.slice/p-n.scope", "resources": {"devices": [{"allow": False}]}},
    }


def test_the_image_s_digests_are_those_of_its_layer(tmp_path: Path) -> None:
    """A runtime that checks what it unpacks finds what the configuration promises."""
    (tmp_path / "busybox").write_bytes(b"\x7fELF-not-really")
    write_image(tmp_path / "i.tar", tmp_path / "busybox", "localhost/x:1", ("/bin/true",))
    with tarfile.open(tmp_path / "i.tar") as archive:
        files = {it.name: _content(archive, it) for it in archive.getmembers()}
    (manifest,) = json.loads(files["manifest.json"])
    config = files[manifest["Config"]]
    layer = files[manifest["Layers"][0]]
    assert manifest["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tree:
        assert _content(tree, tree.getmember("bin/busybox")) == b"\x7fELF-not-really"
        assert tree.getmember("bin/sh").linkname == "busybox"


def test_a_program_that_cannot_be_had_is_told_with_every_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing on PATH, nothing cached, no apt: the reason names the package and what was tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with PackageStore(tmp_path) as store, pytest.raises(Unobtainable, match=r"containerd .*no apt on this"):
        store.tools()


def test_a_cached_package_that_does_not_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that came from another machine is no proof: only a program that ran here counts."""
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "packages/containerd_9.9.9_amd64/usr/bin/containerd"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF-of-elsewhere")
    program.chmod(0o755)
    with PackageStore(tmp_path) as store, pytest.raises(Unobtainable):
        store.tools()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return b"" if stream is None else stream.read()
