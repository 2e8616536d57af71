"""The stack is synthesized again only if one of its inputs has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra import bake
from local import assembly, paths
from local.assembly import compute_fingerprint
from tests.fixtures import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stack's inputs, without a cached assembly."""
    for name in assembly.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "STATE", tmp_path / ".local")
    monkeypatch.setattr(bake, "BAKE_FILE", tmp_path / "docker-bake.hcl")
    return tmp_path


@pytest.fixture
def synthesized(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The contexts of the syntheses so far; each writes its number as the template."""
    done: list[dict[str, str]] = []

    def synthesize(root: Path, outdir: Path, context: dict[str, str]) -> None:
        done.append(context)
        outdir.mkdir()
        (outdir / "Stack.template.json").write_text(str(len(done)))

    monkeypatch.setattr(assembly, "synthesize", synthesize)
    return done


def get_template(context: dict[str, str]) -> str:
    path = assembly.find_cached_template(context) or assembly.synthesize_template(context)
    return path.read_text()


def test_unchanged_stack_is_synthesized_once_for_each_context(synthesized: list[dict[str, str]]) -> None:
    plain: dict[str, str] = {}
    contexts = [plain, plain, {"a": "1"}, plain, {"a": "1"}, {"a": "2"}]

    assert [get_template(context) for context in contexts] == ["1", "1", "2", "1", "2", "3"]
    assert synthesized == [{"selfSignUp": "true", **context} for context in (plain, {"a": "1"}, {"a": "2"})]


def test_context_decides_whether_users_may_sign_up(project: Path, synthesized: list[dict[str, str]]) -> None:
    get_template({"selfSignUp": "false"})
    (project / "cdk.json").write_text('{"app": "app", "context": {"selfSignUp": false}}')
    get_template({})

    assert synthesized == [{"selfSignUp": "false"}, {}]


def test_oldest_assemblies_are_deleted(project: Path, synthesized: list[dict[str, str]]) -> None:
    for number in range(assembly.KEPT + 3):
        get_template({"number": str(number)})

    assert len(list((project / ".local" / "assemblies").iterdir())) == assembly.KEPT


@pytest.mark.parametrize(
    "name",
    [
        "cdk.json",
        "docker-bake.hcl",
        "images/Dockerfile",
        "images/build/trim_packages.py",
        "images/websocket/websocket.py",
        "images/websocket/requirements.txt",
        "infra/backend_stack.py",
        "infra/new_construct.py",
        "requirements/dev.txt",
        "package-lock.json",
    ],
)
def test_changed_file_changes_the_fingerprint(project: Path, name: str) -> None:
    before = compute_fingerprint({})

    with (project / name).open("a") as file:
        file.write("\n")

    assert compute_fingerprint({}) != before


def test_changed_variable_of_an_image_changes_the_fingerprint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compute_fingerprint({})
    monkeypatch.setenv("TAG", "other")  # names the image, and is not in it
    assert compute_fingerprint({}) == before

    monkeypatch.setenv("BASE_IMAGE", "python:3.14-slim")

    assert compute_fingerprint({}) != before


def test_bytecode_does_not_change_the_fingerprint(project: Path) -> None:
    before = compute_fingerprint({})
    (project / "infra" / "__pycache__").mkdir(exist_ok=True)
    (project / "infra" / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"new")

    assert compute_fingerprint({}) == before
