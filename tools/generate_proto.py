"""Generate the committed wire code anew from its .proto files, with betterproto2's compiler.

Run by `nox -s proto`. `generate(SOURCES[i], target)` is also what the test calls that compares the committed
code with a fresh one.
"""

# ruff: noqa: INP001 - a script, in no package

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["SOURCES", "Source", "generate"]

ROOT: Final = Path(__file__).resolve().parent.parent


class Source(NamedTuple):
    """One .proto file and the package that is generated from it.

    Attributes:
        proto: The file, relative to the root of the project.
        package: The generated package; everything in it is replaced.
    """

    proto: Path
    package: Path


SOURCES: Final = (
    Source(Path("nri_resctrl_plugin/nri/api/nri.proto"), Path("nri_resctrl_plugin/nri/api/gen")),
    Source(Path("tests/e2e/cri/cri.proto"), Path("tests/e2e/cri/gen")),
)


def generate(source: Source, target: Path) -> None:
    """Write the generated package of one source into an empty or absent directory.

    Args:
        source: What to generate from.
        target: Where to; its own `__init__.py` is written too.

    Raises:
        subprocess.CalledProcessError: The compiler refused the .proto file.
    """
    proto = ROOT / source.proto
    target.mkdir(parents=True, exist_ok=True)
    # The compiler calls ruff by its bare name, which stands beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(  # noqa: S603 - our own interpreter and our own files
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{proto.parent}",
            f"--python_betterproto2_out={target}",
            # The compiler's defaults are blocking clients and no servers at all.
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=server_generation=async",
            str(proto),
        ],
        check=True,
        env={**os.environ, "PATH": path},
    )
    (target / "__init__.py").write_text(
        f'"""Generated from {source.proto.name} by tools/generate_proto.py. Do not edit."""\n'
    )


def main() -> None:
    """Replace every generated package in the tree."""
    for source in SOURCES:
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / source.package.name
            generate(source, fresh)
            shutil.rmtree(ROOT / source.package, ignore_errors=True)
            shutil.copytree(fresh, ROOT / source.package)
        sys.stdout.write(f"{source.package}: generated\n")


if __name__ == "__main__":
    main()
