"""Read the rows of docs/api-gateway.md, which the cases cite by id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tests.fixtures import ROOT

PAGE = ROOT / "docs" / "api-gateway.md"
MARKS = {"documented", "captured", "assumed"}
ROW = re.compile(r"\| `(?P<id>[a-z0-9-]+)` \| (?P<behaviour>.+) \| (?P<mark>\w+) \| (?P<source>.+) \|")


class ContractError(Exception):
    """The page lacks a row, or a row is malformed; the message names it."""


@dataclass(frozen=True)
class Row:
    """A behaviour of API Gateway. The mark says how certain it is, the source who says so."""

    id: str
    behaviour: str
    mark: str
    source: str

    @property
    def is_in_pack(self) -> bool:
        """Return whether a case must test the row. Other rows say why not."""
        return "Not in the pack: " not in self.behaviour


def parse_rows(page: str) -> dict[str, Row]:
    """Return the page's rows by id. Raise ContractError for a malformed row or an id that is not unique."""
    rows: dict[str, Row] = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            match = ROW.fullmatch(line)
            if match is None or match["mark"] not in MARKS:
                raise ContractError(
                    f"{PAGE.name}: a row must have id, behaviour, one of {sorted(MARKS)}, source: {line}"
                )
            if match["id"] in rows:
                raise ContractError(f'{PAGE.name} has two rows "{match["id"]}": every id must be unique')
            rows[match["id"]] = Row(**match.groupdict())
    return rows


@cache
def read_rows() -> dict[str, Row]:
    return parse_rows(PAGE.read_text())


def find_row(id_: str) -> Row:
    """Return the row. Raise ContractError if the page has none with this id."""
    try:
        return read_rows()[id_]
    except KeyError:
        raise ContractError(f'{PAGE.name} has no row "{id_}": cite the id of a row, or add the row') from None
