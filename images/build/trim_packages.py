"""Remove the files that a function never reads from its packages, to make cold starts faster.

botocore contains the data of all AWS services. Before its first request, a new execution environment lists their folders
and parses the complete models of the services in use. So the image keeps only the services and operations that the
function's trim.toml names, with the shapes that these operations refer to. Every region of every partition stays.

The dist-info folders stay, too: vulnerability scanners read them, and they contain the licenses.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
import sys
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NEVER_READ = ["bin", "*/tests", "*-stubs", "**/*.pyi", "**/*.c", "**/*.h", "**/*.js"]
NOT_READ_BY_A_CLIENT = ["paginators-*", "waiters-*", "examples-*"]

Json = dict[str, Any]


class TrimError(Exception):
    """trim.toml does not fit the packages."""


def trim_packages(task_root: Path, trim: Path) -> None:
    """Trim the packages in `task_root` as the file `trim` says. Without that file, all service data stays.

    Raises:
        TrimError: the file does not fit the packages.
    """
    settings = tomllib.loads(trim.read_text()) if trim.exists() else {}
    for pattern in NEVER_READ:
        remove(task_root.glob(pattern))
    for pattern in settings.get("unused", []):
        if not remove(task_root.glob(pattern)):
            raise TrimError(f"no package brings {pattern}; remove it from `unused`")
    data = task_root / "botocore" / "data"
    if "operations" in settings:
        trim_service_data(data, settings["operations"])
    for record in task_root.glob("*.dist-info/RECORD"):
        update_record(record, replaced=data.rglob("*.json") if record.parent.name.startswith("botocore-") else [])


def remove(paths: Iterable[Path]) -> int:
    """Remove files and folders; return how many there were."""
    found = list(paths)
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return len(found)


def trim_service_data(data: Path, operations: dict[str, list[str]]) -> None:
    """Keep only these operations, by service, in botocore's folder of service data."""
    remove(path for path in data.iterdir() if path.is_dir() and path.name not in operations)
    endpoint_prefixes = set()
    for service, names in operations.items():
        version = find_latest_version(data, service)
        remove(path for path in (data / service).iterdir() if path != version)
        remove(path for pattern in NOT_READ_BY_A_CLIENT for path in version.glob(pattern))
        # Without compression the files load faster.
        for compressed in version.glob("*.json.gz"):
            write(compressed.with_suffix(""), json.loads(gzip.decompress(compressed.read_bytes())))
            compressed.unlink()
        model = json.loads((version / "service-2.json").read_bytes())
        write(version / "service-2.json", trim_model(model, service, names))
        endpoint_prefixes.add(model["metadata"]["endpointPrefix"])

    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {
            prefix: service for prefix, service in partition["services"].items() if prefix in endpoint_prefixes
        }
    write(data / "endpoints.json", endpoints)


def find_latest_version(data: Path, service: str) -> Path:
    """Return the folder of the API version that botocore uses by default."""
    versions = sorted({model.parent for model in (data / service).glob("*/service-2.json*")})
    if not versions:
        raise TrimError(f"botocore has no service {service}; correct `operations`")
    return versions[-1]


def trim_model(model: Json, service: str, names: list[str]) -> Json:
    """Return the model with only these operations and the shapes that they refer to, without documentation."""
    if unknown := [name for name in names if name not in model["operations"]]:
        raise TrimError(f"botocore's service {service} has no operation {', '.join(unknown)}; correct `operations`")
    # botocore itself calls the `endpointoperation` if endpoint discovery is enabled.
    operations = {
        name: operation
        for name, operation in model["operations"].items()
        if name in names or operation.get("endpointoperation")
    }
    shapes = find_shapes(operations, model["shapes"])
    kept = {"operations": operations, "shapes": {name: model["shapes"][name] for name in sorted(shapes)}}
    trimmed: Json = remove_documentation(model | kept)
    return trimmed


def find_shapes(operations: Json, shapes: Json) -> set[str]:
    """Return the names of the shapes that the operations refer to, also through other shapes."""
    reached: set[str] = set()
    pending: list[Any] = [operations]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            name = node.get("shape")  # a reference, except if a structure has a member named `shape`
            if isinstance(name, str) and name not in reached:
                reached.add(name)
                pending.append(shapes[name])
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return reached


def remove_documentation(node: Any) -> Any:
    """Return a copy without the texts named `documentation`. A structure's member of this name stays."""
    if isinstance(node, dict):
        return {
            name: remove_documentation(value)
            for name, value in node.items()
            if not (name == "documentation" and isinstance(value, str))
        }
    return [remove_documentation(value) for value in node] if isinstance(node, list) else node


def write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))


def update_record(record: Path, replaced: Iterable[Path]) -> None:
    """Update a package's list of files: drop removed files, add replaced ones, and hash all again."""
    task_root = record.parents[1]
    listed = {row[0] for row in csv.reader(record.read_text().splitlines())}
    listed |= {path.relative_to(task_root).as_posix() for path in replaced}
    with record.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        for name in sorted(listed):
            path = task_root / name
            if path == record:
                rows.writerow([name, "", ""])
            elif path.is_file():
                content = path.read_bytes()
                digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                rows.writerow([name, f"sha256={digest}", len(content)])


if __name__ == "__main__":
    try:
        trim_packages(Path(sys.argv[1]), Path(sys.argv[2]))
    except TrimError as error:
        sys.exit(f"trim.toml: {error}")
