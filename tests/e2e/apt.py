"""apt with its state in a directory of ours, on the machine's own sources or on sources derived from them.

Owns: every call of apt, and the two formats of its source files. Must not know: which packages are wanted.

Rules:
    1. The system's apt state stays as it was: lists, caches, downloads and pins are private, its hooks off.
    2. No host is named here: where packages come from is what this machine's configuration says.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Apt", "derive_sources", "own_sources", "run"]

APT_CONF = """\
Dir::State::Lists "{directory}/lists";
Dir::Cache "{directory}/cache";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""

APT_CONF_SOURCES = """\
Dir::Etc::SourceList "{directory}/sources.list";
Dir::Etc::SourceParts "{directory}/sources";
Dir::Etc::Preferences "{directory}/preferences";
Dir::Etc::PreferencesParts "{directory}/sources";
"""


class Apt:
    """apt with its state in a directory of ours; updated when it is made."""

    def __init__(self, directory: Path, name: str, suite: str | None, sources: str | None) -> None:
        for part in ("lists/partial", "cache/archives/partial", "downloads", "sources"):
            (directory / part).mkdir(parents=True)
        self.name = name
        self._directory = directory
        self._conf = directory / "apt.conf"
        conf = APT_CONF
        if sources is not None:
            conf += APT_CONF_SOURCES
            (directory / "sources/derived.sources").write_text(sources)
            pin = f"Package: *\nPin: release n={suite}\nPin-Priority: 50\n"
            (directory / "preferences").write_text(pin)
        self._conf.write_text(conf.format(directory=directory))
        # Some source of the machine may be out of reach while the one that matters is there, so the exit
        # status decides nothing; what it said is told if a package turns out to be missing.
        done = subprocess.run(
            ["apt-get", "-c", str(self._conf), "-q", "update"],
            capture_output=True,
            text=True,
            check=False,
            env=_plain_env(),
            timeout=100,
        )
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
        self.complaint = f" ({' '.join(complaints)[:500]})" if complaints else ""

    def candidate(self, package: str) -> str | None:
        """Return the version that apt would take, or None."""
        text = run(["apt-cache", "-c", str(self._conf), "policy", package])
        found = re.search(r"^ *Candidate: (\S+)", text, re.MULTILINE)
        return None if found is None or found[1] == "(none)" else found[1]

    def download(self, package: str, version: str) -> Path:
        """Fetch a package; apt checks it against the signed lists."""
        into = Path(tempfile.mkdtemp(dir=self._directory / "downloads"))
        run(["apt-get", "-c", str(self._conf), "-q", "download", f"{package}={version}"], cwd=into)
        (archive,) = into.glob("*.deb")
        return archive


def derive_sources(own: list[tuple[str, str]], release: str, suite: str) -> str:
    """Turn a machine's apt sources for one release into those for another.

    Args:
        own: File name and text of each source file, in either of apt's formats.
        release: The release that the machine runs, by code name.
        suite: The release that is wanted, by code name.

    Returns:
        A text in the deb822 format: each enabled binary source that names exactly `release` (not its
        security or backports suites) and has the component `main`, with its own URIs, signatures and options.
        "" if there is none.
    """
    stanzas: list[str] = []
    for name, text in own:
        parse = _deb822 if name.endswith(".sources") else _one_line
        for fields in parse(text):
            wanted = (
                "deb" in fields.get("types", "").split()
                and release in fields.get("suites", "").split()
                and "main" in fields.get("components", "").split()
                and fields.get("enabled", "yes").strip().lower() not in {"no", "false", "0", "off"}
            )
            if wanted:
                changed = fields | {"types": "deb", "suites": suite, "components": "main"}
                stanzas.append("".join(f"{key.title()}: {value}\n" for key, value in changed.items()))
    return "\n".join(stanzas)


def _deb822(text: str) -> Iterator[dict[str, str]]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[key] = f"{fields.get(key, '')}\n{line}"
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        yield fields


def _one_line(text: str) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        found = re.match(
            r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<rest>[^#]*)", line
        )
        if found is None:
            continue
        fields = {
            "types": "deb",
            "uris": found["uri"],
            "suites": found["suite"],
            "components": found["rest"].strip(),
        }
        longer = {"arch": "architectures", "lang": "languages", "target": "targets"}
        for option in (found["options"] or "").split():
            key, _, value = option.partition("=")
            fields[longer.get(key.lower(), key.lower())] = value.replace(",", " ")
        yield fields


def own_sources() -> list[tuple[str, str]]:
    shell = run(["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"])
    places = dict(re.findall(r"^(\w+)='([^']*)'$", shell, re.MULTILINE))
    files = [Path(places["LIST"])] if "LIST" in places else []
    if "PARTS" in places:
        files += sorted(it for it in Path(places["PARTS"]).glob("*") if it.suffix in {".list", ".sources"})
    return [(it.name, it.read_text(errors="replace")) for it in files if it.is_file()]


def run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=_plain_env(), timeout=100
    )
    if done.returncode != 0:
        raise subprocess.SubprocessError(f"{' '.join(command[:4])} ...: {done.stderr.strip()[-500:]}")
    return done.stdout


def _plain_env() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C.UTF-8"}
