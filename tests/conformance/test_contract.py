"""Check that docs/api-gateway.md and the cases agree. These tests start no gateway."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conformance.conftest import ALSO_WITH_IMAGES, pytest_runtest_call
from tests.conformance.contract import PAGE, ContractError, find_row, parse_rows, read_rows

TEXT = PAGE.read_text()
CASES = {
    id_
    for file in Path(__file__).parent.glob("test_*.py")
    for id_ in re.findall(r'^@case\("(.+)"\)$', file.read_text(), re.MULTILINE)
}
ADDRESSES = dict(re.findall(r"^\[(.+)\]: (\S+)$", TEXT, re.MULTILINE))
REFERENCE = re.compile(r"\[([^\]]+)\](?![\[(:])")


def find_references(source: str) -> list[str]:
    """Return the names of the links in a source: `name` for both `[name]` and `[text][name]`."""
    return REFERENCE.findall(source)


def test_every_row_has_a_case_or_says_why_not() -> None:
    assert [id_ for id_, row in read_rows().items() if row.is_in_pack and id_ not in CASES] == []


def test_rows_that_are_not_in_the_pack_have_no_case() -> None:
    assert [id_ for id_ in CASES if not find_row(id_).is_in_pack] == []


def test_documented_and_captured_rows_link_their_source() -> None:
    rows = read_rows().values()

    assert [row.id for row in rows if row.mark != "assumed" and not find_references(row.source)] == []


def test_every_link_of_a_source_has_an_address_and_every_address_is_used() -> None:
    used = {name for row in read_rows().values() for name in find_references(row.source)}

    assert used == ADDRESSES.keys()


def test_unknown_id_is_named() -> None:
    with pytest.raises(ContractError, match='has no row "nowhere"'):
        find_row("nowhere")


@pytest.mark.parametrize(
    "row", ["| `a` | behaviour | likely | source |", "| `a` | behaviour | assumed |", "| `A b` | x | assumed | y |"]
)
def test_malformed_row_is_named(row: str) -> None:
    with pytest.raises(ContractError, match=re.escape(row)):
        parse_rows(row)


def test_id_must_be_unique() -> None:
    row = "| `a` | behaviour | assumed | source |"

    with pytest.raises(ContractError, match='two rows "a"'):
        parse_rows(f"{row}\n{row}")


def test_cases_that_also_run_with_images_exist() -> None:
    assert ALSO_WITH_IMAGES <= CASES


def run_case(id_: str, error: BaseException, *, elsewhere: bool) -> None:
    """Let a case fail with the error, against the local gateway or elsewhere."""
    mark = pytest.mark.case(find_row(id_)).mark
    config = SimpleNamespace(getoption=lambda *_: elsewhere)
    item: Any = SimpleNamespace(name="test", config=config, get_closest_marker=lambda _: mark)
    call = pytest_runtest_call(item)
    next(call)
    call.throw(error)


@pytest.mark.parametrize("error", [AssertionError("assert 404 == 403"), pytest.fail.Exception("DID NOT RAISE")])
def test_difference_from_an_assumed_row_is_a_skip_elsewhere(error: BaseException) -> None:
    with pytest.raises(pytest.skip.Exception, match=str(error)):
        run_case("open-path-below-stage", error, elsewhere=True)


@pytest.mark.parametrize(
    ("id_", "elsewhere"), [("open-path-below-stage", False), ("open-101", True), ("open-101", False)]
)
def test_other_differences_are_failures(id_: str, elsewhere: bool) -> None:
    with pytest.raises(AssertionError, match="404"):
        run_case(id_, AssertionError("assert 404 == 403"), elsewhere=elsewhere)
