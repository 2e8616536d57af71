"""How a deployment reads docker-bake.hcl."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import infra.bake
from infra.bake import BakeTarget
from tests.fixtures import ROOT

FUNCTIONS = ["authorizer", "websocket"]


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Copy all sources of the images, and let infra.bake read the copy."""
    shutil.copy(ROOT / "docker-bake.hcl", tmp_path)
    shutil.copytree(ROOT / "images", tmp_path / "images")
    monkeypatch.setattr(infra.bake, "ROOT", tmp_path)
    monkeypatch.setattr(infra.bake, "BAKE_FILE", tmp_path / "docker-bake.hcl")
    monkeypatch.setattr(infra.bake, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(infra.bake, "DOCKERFILE", tmp_path / "images" / "Dockerfile")
    return tmp_path


def change_platforms(sources: Path, platforms: str) -> None:
    bake_file = sources / "docker-bake.hcl"
    text = bake_file.read_text()
    assert '["linux/amd64"]' in text
    bake_file.write_text(text.replace('["linux/amd64"]', platforms))


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_platform_is_that_of_the_bake_file(sources: Path, platform: str) -> None:
    change_platforms(sources, f'["{platform}"]')

    assert BakeTarget.read("authorizer").platform == platform


@pytest.mark.parametrize("platforms", ['["linux/amd64", "linux/arm64"]', "[]"])
def test_bake_file_without_exactly_one_platform_is_refused(sources: Path, platforms: str) -> None:
    """Lambda takes an image of one platform."""
    change_platforms(sources, platforms)

    with pytest.raises(ValueError, match=r"^docker-bake\.hcl: there must be one line such as platforms = "):
        BakeTarget.read("authorizer")


@pytest.mark.parametrize(
    "path",
    [
        "docker-bake.hcl",
        "images/Dockerfile",
        "images/build/trim_packages.py",
        "images/authorizer/authorizer.py",
        "images/authorizer/trim.toml",
        "images/authorizer/requirements.txt",
        "images/authorizer/some/new/file",
    ],
)
def test_source_hash_changes_with_every_file_that_goes_into_the_image(sources: Path, path: str) -> None:
    before = infra.bake.hash_sources(sources / "images" / "authorizer", {})

    changed = sources / path
    changed.parent.mkdir(parents=True, exist_ok=True)
    with changed.open("a") as file:
        file.write("\n")

    assert infra.bake.hash_sources(sources / "images" / "authorizer", {}) != before


def test_source_hash_changes_when_a_file_is_renamed(sources: Path) -> None:
    before = infra.bake.hash_sources(sources / "images" / "authorizer", {})

    context = sources / "images" / "authorizer"
    (context / "requirements.in").rename(context / "renamed.in")

    assert infra.bake.hash_sources(sources / "images" / "authorizer", {}) != before


@pytest.mark.parametrize(
    "path",
    [
        "images/websocket/websocket.py",
        "images/authorizer/__pycache__/authorizer.pyc",
        "images/build/__pycache__/check_base.pyc",
    ],
)
def test_source_hash_stays_when_something_else_changes(sources: Path, path: str) -> None:
    before = infra.bake.hash_sources(sources / "images" / "authorizer", {})

    (sources / path).parent.mkdir(exist_ok=True)
    (sources / path).write_text("changed")

    assert infra.bake.hash_sources(sources / "images" / "authorizer", {}) == before


def test_source_may_be_in_another_folder(sources: Path) -> None:
    elsewhere = sources / "elsewhere"
    shutil.copytree(sources / "images" / "authorizer", elsewhere / "authorizer")
    before, ours = BakeTarget.read("authorizer", elsewhere).source_hash, BakeTarget.read("authorizer").source_hash

    (elsewhere / "authorizer" / "authorizer.py").write_text("changed")

    assert BakeTarget.read("authorizer", elsewhere).source_hash != before
    assert BakeTarget.read("authorizer").source_hash == ours


@pytest.mark.parametrize(
    ("variable", "value", "changes"),
    [
        ("BASE_IMAGE", "registry.example/python:3", True),
        ("TAG", "another", False),
        ("CA_FILE", __file__, False),
    ],
)
def test_source_hash_follows_the_variables_that_change_the_image(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, *, changes: bool
) -> None:
    monkeypatch.delenv(variable, raising=False)
    before = BakeTarget.read("authorizer").source_hash

    monkeypatch.setenv(variable, value)

    assert (BakeTarget.read("authorizer").source_hash != before) is changes
