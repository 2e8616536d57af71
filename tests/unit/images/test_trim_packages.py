"""The scripts that the Dockerfile runs, with made-up packages and base images."""

from __future__ import annotations

import gzip
import importlib.util
import json
import platform
import runpy
import shutil
import sys
from base64 import urlsafe_b64decode
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import Distribution, PackagePath
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import ROOT

SCRIPTS = ROOT / "images" / "build"
RULES = {"version": "1.0", "rules": []}
MODEL: dict[str, Any] = {
    "metadata": {"endpointPrefix": "pigeon"},
    "documentation": "<p>Posts by pigeon.</p>",
    "operations": {
        "Post": {
            "name": "Post",
            "input": {"shape": "PostRequest"},
            "errors": [{"shape": "Gone"}],
            "documentation": "<p>Posts.</p>",
        },
        "Recall": {"name": "Recall", "input": {"shape": "RecallRequest"}},
        "DescribeLofts": {"name": "DescribeLofts", "output": {"shape": "Lofts"}, "endpointoperation": True},
    },
    "shapes": {
        "PostRequest": {
            "type": "structure",
            "members": {
                "documentation": {"shape": "Text", "documentation": "<p>A member of this name.</p>"},
                "shape": {"shape": "Letters"},
            },
        },
        "Letters": {"type": "list", "member": {"shape": "Letter"}},
        "Letter": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Letters"}},
        "Text": {"type": "string"},
        "Gone": {"type": "structure", "exception": True, "members": {}},
        "Lofts": {"type": "structure", "members": {}},
        "RecallRequest": {"type": "structure", "members": {"reason": {"shape": "Reason"}}},
        "Reason": {"type": "string"},
    },
}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def task_root(tmp_path: Path) -> Path:
    """Return a folder with two packages: a botocore with three services, and another one."""
    root = tmp_path / "task"
    data = root / "botocore" / "data"
    for service in ("pigeon", "parcel", "ec2"):
        write(data / service / "2024-01-01" / "service-2.json.gz", MODEL)
        write(data / service / "2024-01-01" / "endpoint-rule-set-1.json.gz", RULES)
    write(data / "pigeon" / "2011-01-01" / "service-2.json.gz", MODEL | {"operations": {}})
    for name in ("paginators-1.json", "waiters-2.json", "examples-1.json"):
        write(data / "pigeon" / "2024-01-01" / name, {})
    services: dict[str, Any] = {"pigeon": {"endpoints": {"de": {}}}, "ec2": {}}
    partitions: list[Any] = [
        {"partition": name, "regions": {name: {}}, "services": services} for name in ("aws", "aws-cn")
    ]
    write(data / "endpoints.json", {"version": 3, "partitions": partitions})
    write(data / "partitions.json", {"partitions": []})
    for name in ("__init__.py", "session.pyi"):
        write(root / "botocore" / name, "")
    for name in ("__init__.py", "tests/test_it.py", "_speedups.c", "include/speedups.h", "zones.tar", "fetch.js"):
        write(root / "another" / name, "")
    write(root / "another-stubs" / "__init__.pyi", "")
    write(root / "bin" / "another", "#!/usr/bin/python")
    for package in ("botocore", "another"):
        info = root / f"{package}-1.0.dist-info"
        write(info / "METADATA", f"Name: {package}\nVersion: 1.0\n")
        write(info / "RECORD", "")
        folders = [root / package, root / f"{package}-stubs", root / "bin", info]
        files = [file.relative_to(root) for folder in folders for file in folder.rglob("*") if file.is_file()]
        write(info / "RECORD", "".join(f"{file},sha256=old,1\n" for file in files))
    return root


Trim = Callable[[str], None]


@pytest.fixture
def trim(task_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trim:
    """Return how to run the script as the Dockerfile does, with this trim.toml."""

    def run(settings: str) -> None:
        (tmp_path / "trim.toml").write_text(settings)
        monkeypatch.setattr(sys, "argv", ["trim_packages.py", str(task_root), str(tmp_path / "trim.toml")])
        runpy.run_path(str(SCRIPTS / "trim_packages.py"), run_name="__main__")

    return run


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


ONE_OPERATION = '[operations]\npigeon = ["Post"]\n'


def test_unused_services_are_removed(task_root: Path, trim: Trim) -> None:
    trim(ONE_OPERATION)

    assert files(task_root / "botocore") == {
        "__init__.py",
        "data/endpoints.json",
        "data/partitions.json",
        "data/pigeon/2024-01-01/endpoint-rule-set-1.json",
        "data/pigeon/2024-01-01/service-2.json",
    }


def test_operations_keep_the_shapes_that_they_refer_to(task_root: Path, trim: Trim) -> None:
    trim(ONE_OPERATION)

    version = task_root / "botocore/data/pigeon/2024-01-01"
    model = json.loads((version / "service-2.json").read_bytes())
    assert model["metadata"] == MODEL["metadata"]
    assert model["operations"].keys() == {"Post", "DescribeLofts"}  # botocore itself calls the latter
    assert model["shapes"].keys() == {"PostRequest", "Letters", "Letter", "Text", "Gone", "Lofts"}
    assert json.loads((version / "endpoint-rule-set-1.json").read_bytes()) == RULES


def test_documentation_is_removed_but_not_a_member_of_this_name(task_root: Path, trim: Trim) -> None:
    trim(ONE_OPERATION)

    model = json.loads((task_root / "botocore/data/pigeon/2024-01-01/service-2.json").read_bytes())
    assert "<p>" not in json.dumps(model)
    assert model["shapes"]["PostRequest"]["members"] == {
        "documentation": {"shape": "Text"},
        "shape": {"shape": "Letters"},
    }


def test_services_in_use_keep_their_endpoints_in_every_partition(task_root: Path, trim: Trim) -> None:
    trim(ONE_OPERATION)

    partitions = json.loads((task_root / "botocore/data/endpoints.json").read_bytes())["partitions"]
    services: dict[str, Any] = {"pigeon": {"endpoints": {"de": {}}}}
    assert partitions == [
        {"partition": name, "regions": {name: {}}, "services": services} for name in ("aws", "aws-cn")
    ]


def test_function_without_operations_keeps_all_services(task_root: Path, trim: Trim) -> None:
    before = files(task_root / "botocore" / "data")

    trim("")

    assert files(task_root / "botocore" / "data") == before


def test_function_may_have_no_settings_at_all(task_root: Path) -> None:
    trim_packages = runpy.run_path(str(SCRIPTS / "trim_packages.py"))["trim_packages"]

    trim_packages(task_root, task_root / "trim.toml")

    assert files(task_root / "another") == {"__init__.py", "zones.tar"}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [("another", set()), ("another/*.tar", {"__init__.py"}), ("another/zones.tar", {"__init__.py"})],
)
def test_unused_files_are_removed(task_root: Path, trim: Trim, pattern: str, left: set[str]) -> None:
    trim(f'unused = ["{pattern}"]')

    assert files(task_root / "another") == left


def test_metadata_stays_when_a_package_is_removed(task_root: Path, trim: Trim) -> None:
    trim('unused = ["another", "botocore"]')

    assert files(task_root) == {
        f"{package}-1.0.dist-info/{name}" for package in ("another", "botocore") for name in ("METADATA", "RECORD")
    }


@pytest.mark.parametrize("settings", ["", ONE_OPERATION, 'unused = ["botocore/data", "another"]'])
def test_record_lists_exactly_the_files_that_stay(task_root: Path, trim: Trim, settings: str) -> None:
    trim(settings)

    listed: dict[str, PackagePath] = {}
    for package in ("another", "botocore"):
        record = f"{package}-1.0.dist-info/RECORD"
        entries = {str(file): file for file in Distribution.at(task_root / f"{package}-1.0.dist-info").files or []}
        assert (entries[record].hash, entries.pop(record).size) == (None, None)
        listed |= entries
    assert listed.keys() == {name for name in files(task_root) if not name.endswith("RECORD")}
    for name, entry in listed.items():
        content = (task_root / name).read_bytes()
        assert entry.size == len(content)
        assert entry.hash
        assert urlsafe_b64decode(f"{entry.hash.value}=") == sha256(content).digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            '[operations]\npigeon = ["Post", "Fly"]',
            "trim.toml: botocore's service pigeon has no operation Fly; correct `operations`",
        ),
        ("[operations]\nraven = []", "trim.toml: botocore has no service raven; correct `operations`"),
        ('unused = ["another/*.zip"]', "trim.toml: no package brings another/*.zip; remove it from `unused`"),
    ],
    ids=["operation", "service", "file"],
)
def test_build_fails_if_an_upgrade_removes_a_named_service_operation_or_file(
    trim: Trim, settings: str, message: str
) -> None:
    with pytest.raises(SystemExit) as failure:
        trim(settings)

    assert failure.value.code == message


# The base image


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make up a usable base image; return the patch with which a test changes it."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.41"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/local/bin/{name}")
    return monkeypatch


def check_base() -> None:
    runpy.run_path(str(SCRIPTS / "check_base.py"), run_name="__main__")


@pytest.mark.parametrize("version", ["2.34", "2.41", "3.0"])
def test_base_with_glibc_is_accepted(base: pytest.MonkeyPatch, version: str) -> None:
    base.setattr(platform, "libc_ver", lambda: ("glibc", version))

    check_base()


@pytest.mark.parametrize(
    ("library", "described"),
    [
        (("musl", "1.2.5"), "it has musl 1.2.5"),
        (("", ""), "it has another C library"),  # how Python before 3.14 reports musl
        (("glibc", "2.31"), "it has glibc 2.31"),
        (("glibc", "2.4"), "it has glibc 2.4"),
    ],
)
def test_base_without_a_recent_glibc_is_refused(
    base: pytest.MonkeyPatch, library: tuple[str, str], described: str
) -> None:
    base.setattr(platform, "libc_ver", lambda: library)

    with pytest.raises(SystemExit) as failure:
        check_base()

    assert failure.value.code == (
        f"BASE_IMAGE cannot be used: {described}, the packages need glibc 2.34 or newer. "
        "An image that can be used is python:3.13-slim-trixie."
    )


def test_base_with_an_old_python_is_refused(base: pytest.MonkeyPatch) -> None:
    base.setattr(sys, "version_info", (3, 10, 12))
    base.setattr(platform, "python_version", lambda: "3.10.12")

    with pytest.raises(SystemExit, match=r"it has Python 3\.10\.12, the packages need 3\.11 or newer"):
        check_base()


def test_base_with_python_elsewhere_is_refused(base: pytest.MonkeyPatch) -> None:
    base.setattr(shutil, "which", lambda name: f"/opt/{name}")

    with pytest.raises(
        SystemExit, match=r"python at /opt/python, which must be /usr/bin/python or /usr/local/bin/python"
    ):
        check_base()


def test_base_without_pip_is_refused(base: pytest.MonkeyPatch) -> None:
    base.setattr(importlib.util, "find_spec", {"pip": None}.get)

    with pytest.raises(SystemExit, match="it has no pip, which installs the packages"):
        check_base()
