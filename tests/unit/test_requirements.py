"""What is installed is what was locked: versions and hashes of every package, for images, development and tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.fixtures import ROOT
from tests.fixtures.locks import LOCKS

INSTALLERS = [ROOT / "Makefile", *sorted((ROOT / "images").rglob("Dockerfile"))]
LOCKED = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[\w.]+)( ; .+?)?( --hash=sha256:[0-9a-f]{64})+")


def path(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def read_lines(file: Path) -> list[str]:
    """Read lines as pip and the shell do: joined at backslashes, without comments."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
    return [line.rstrip() for line in joined.splitlines() if line.strip()]


def versions(lock: Path) -> dict[str, str]:
    return {match["name"]: match["version"] for line in read_lines(lock) if (match := LOCKED.fullmatch(line))}


def test_locks_are_all_found() -> None:
    assert {path(lock) for lock in LOCKS} >= {
        "images/authorizer/requirements.txt",
        "images/rie/requirements.txt",
        "images/websocket/requirements.txt",
        "requirements/aws.txt",
        "requirements/browser.txt",
        "requirements/dev.txt",
    }


@pytest.mark.parametrize("lock", LOCKS, ids=path)
def test_every_requirement_has_one_version_and_hashes(lock: Path) -> None:
    """And no line says where else to look for packages."""
    assert [line for line in read_lines(lock) if not LOCKED.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=path)
def test_every_requirement_is_in_its_lock(lock: Path) -> None:
    asked_for = re.findall(r"^[a-z][a-z0-9-]*", lock.with_suffix(".in").read_text(), re.MULTILINE)

    assert asked_for
    assert {*asked_for} - versions(lock).keys() == set()


@pytest.mark.parametrize(
    "line",
    [
        "joserfc",
        "joserfc==1.8.0",
        "joserfc>=1.8.0 --hash=sha256:" + "0" * 64,
        "joserfc==1.8.* --hash=sha256:" + "0" * 64,
        "joserfc==1.8.0 --hash=md5:" + "0" * 32,
        "joserfc @ https://example.com/joserfc.whl --hash=sha256:" + "0" * 64,
        "--index-url=https://example.com/simple",
        "-r other.txt",
    ],
)
def test_requirement_that_could_change_is_not_taken_for_locked(line: str) -> None:
    assert not LOCKED.fullmatch(line)


@pytest.mark.parametrize("function", ["authorizer", "websocket"])
def test_tests_run_with_the_versions_that_are_shipped(function: str) -> None:
    shipped = versions(ROOT / "images" / function / "requirements.txt")
    tested = versions(ROOT / "requirements" / "dev.txt")

    both = shipped.keys() & tested.keys()
    assert both
    assert {name: shipped[name] for name in both} == {name: tested[name] for name in both}


def test_hook_formats_with_the_locked_ruff() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()

    (revision,) = re.findall(r"ruff-pre-commit\n +rev: v(\S+)", hooks)

    assert revision == versions(ROOT / "requirements" / "dev.txt")["ruff"]


@pytest.mark.parametrize("installer", INSTALLERS, ids=path)
def test_nothing_is_installed_without_its_hashes(installer: Path) -> None:
    commands = [line for line in read_lines(installer) if re.search(r"\bpip (install|download)\b", line)]

    assert commands
    assert [command for command in commands if "--require-hashes" not in command] == []


@pytest.mark.parametrize("folder", [ROOT, ROOT / "frontend"], ids=["commands", "page"])
def test_every_node_package_has_a_hash(folder: Path) -> None:
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    package = json.loads((folder / "package.json").read_text())
    asked_for = package.get("dependencies", {}) | package["devDependencies"]

    assert {f"node_modules/{name}" for name in asked_for} <= packages.keys()
    assert [name for name, package in packages.items() if name and "sha512-" not in package["integrity"]] == []
    assert [version for version in asked_for.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
