"""Write the committed schemas of the Kubernetes objects that the deployment consists of.

Run it by hand, with `pip install kubernetes-validate`: that package has the schema of every object of every
version, 100 MB of it. What is kept is strict (an unknown field is an error), without descriptions, for the
oldest version whose fields the manifests use and for the newest there is.
"""

# ruff: noqa: INP001 - a script, in no package

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET: Final = Path(__file__).resolve().parent.parent / "tests/data/kubernetes"
VERSIONS: Final = ("1.30", "1.37")
"""1.30 has the field appArmorProfile first; before, it was an annotation."""

KINDS: Final = {"Namespace": "namespace-v1", "ConfigMap": "configmap-v1", "DaemonSet": "daemonset-apps-v1"}


def main() -> None:
    """Write one file a version."""
    schemas = files("kubernetes_validate") / "kubernetes-json-schema"
    TARGET.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        folder = schemas / f"v{version}.0-local-strict"
        known = json.loads((folder / "_definitions.json").read_text())["$defs"]
        kinds = {kind: json.loads((folder / f"{name}.json").read_text()) for kind, name in KINDS.items()}
        needed: dict[str, Any] = {}
        waiting = [name for schema in kinds.values() for name in _references(schema)]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed[name] = known[name]
                waiting += _references(known[name])
        definitions = kinds | dict(sorted(needed.items()))
        trimmed = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$comment": f"Kubernetes {version}, Apache-2.0; made by tools/trim_kubernetes_schemas.py",
            "$defs": {name: _trimmed(schema) for name, schema in definitions.items()},
        }
        path = TARGET / f"v{version}.json"
        path.write_text(json.dumps(trimmed, separators=(",", ":"), sort_keys=True) + "\n")
        sys.stdout.write(f"{path}: {path.stat().st_size // 1024} kB\n")


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _trimmed(schema: object) -> object:
    """Drop what people read, and point within this file."""
    if isinstance(schema, list):
        return [_trimmed(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _trimmed(value) for key, value in schema.items() if not _is_prose(key, value)}
    if "$ref" in kept:
        kept["$ref"] = f"#/$defs/{str(kept['$ref']).rpartition('/')[2]}"
    return kept


def _is_prose(key: str, value: object) -> bool:
    if key == "description":
        return isinstance(value, str)  # a property may have that name too
    return key.startswith(("x-kubernetes-", "$schema", "$id"))


if __name__ == "__main__":
    main()
