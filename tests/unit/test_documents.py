"""The documents' promises that a machine can check."""

import re
from pathlib import Path

import pytest

from ops.cost import write_tables
from tests.fixtures import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def make_anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text()) if "://" not in link]

    for link in links:
        target, _, fragment = link.partition("#")
        path = (document.parent / target) if target else document
        assert path.exists(), link
        if fragment:
            assert fragment in {make_anchor(heading) for heading in HEADING.findall(path.read_text())}, link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    mentioned = set(re.findall(r"(?:`|^|\()make (?:-s )?([a-z-]+)", document.read_text(), re.MULTILINE))

    assert mentioned <= targets


def test_tree_in_readme_names_what_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme.partition("## What is where")[2].split("```")[1]

    paths = [line.split()[0] for line in tree.strip().splitlines()]

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_alarm_has_its_section() -> None:
    anchors = set(re.findall(r'anchor="([a-z-]+)"', (ROOT / "infra" / "alarms.py").read_text()))

    assert anchors
    assert anchors <= {make_anchor(heading) for heading in HEADING.findall((ROOT / "docs" / "operate.md").read_text())}


def test_prices_are_those_that_the_script_prints() -> None:
    document = (ROOT / "docs" / "scale-and-cost.md").read_text()

    for table in "\n".join(write_tables()).split("\n\n"):
        assert table in document


@pytest.mark.parametrize("function", ["authorizer", "websocket"])
def test_architecture_lists_every_reason_code(function: str) -> None:
    """But for those in the JOSE library's manner, `invalid_claim.sub`, of which it gives examples."""
    source = (ROOT / "images" / function / f"{function}.py").read_text()
    reasons = set(re.findall(r'Rejected\((?:\d+, )?"([\w-]+)"', source))

    assert reasons
    assert reasons - set(re.findall(r"`([^`]+)`", (ROOT / "ARCHITECTURE.md").read_text())) == set()
