"""Format the figures of a run as text, and save all of them as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.figures import FULL_MB, LIMITED_MB, Figures, Start, Statistics
from benchmarks.subjects import SAMPLED

NAME_WIDTH = 38
SAMPLED_COLD_SECONDS = 0.040  # how much longer a sampled cold start may take
WARM_FLOOR_RATIO = 1.3
PLACES = {"process": "As processes", "image": "In the images"}
COLUMNS = ("init", "first", "sum", "- bare", "warm", "p99", "CPU cold", "CPU warm", "peak MB")


@dataclass(frozen=True)
class Check:
    """A figure with a target, and whether the target is met."""

    text: str
    figures: Figures
    met: bool


class Report:
    """The figures of a run as text, with colours if `coloured` is true."""

    def __init__(self, figures: Sequence[Figures], *, coloured: bool) -> None:
        self._figures = figures
        self._by_key = {each.subject.key: each for each in figures}
        self._coloured = coloured

    def __str__(self) -> str:
        tables = (line for place in PLACES for line in self._format_table(place))
        return "\n".join(
            [*tables, *self._format_limited_table(), *self._format_traffic(), *self._format_targets()]
        ).rstrip()

    def _format_table(self, place: str) -> Iterator[str]:
        rows = [each for each in self._figures if each.subject.place == place]
        if not rows:
            return
        counted = any(start.instructions is not None for each in rows for start in each.starts)
        columns = (*COLUMNS, "M instr.") if counted else COLUMNS
        yield self._format_heading(PLACES[place], "".join(f"{column:>9}" for column in columns))
        for each in rows:
            if statistics := each.at():
                yield f"{each.subject.name:<{NAME_WIDTH}}" + "".join(
                    self._format_cells(statistics, self._find_floor(each))
                )
        yield ""

    def _find_floor(self, figures: Figures) -> Statistics | None:
        floor = self._by_key.get((figures.subject.floor, figures.subject.place))
        return floor.at() if floor else None

    def _format_cells(self, statistics: Statistics, floor: Statistics | None) -> Iterator[str]:
        yield format_milliseconds(statistics.init)
        yield format_milliseconds(statistics.first)
        yield format_milliseconds(statistics.cold)
        yield format_milliseconds(statistics.cold - floor.cold if floor else None)
        yield format_milliseconds(statistics.warm)
        yield format_milliseconds(statistics.warm_p99)
        yield format_milliseconds(statistics.cpu_cold)
        yield format_milliseconds(statistics.cpu_warm)
        yield f"{statistics.peak_memory / 1e6:>9.0f}"
        if statistics.instructions is not None:
            yield f"{statistics.instructions / 1e6:>9.0f}"

    def _format_limited_table(self) -> Iterator[str]:
        sizes = (FULL_MB, *LIMITED_MB)
        rows = [each for each in self._figures if any(each.at(size) for size in LIMITED_MB)]
        if not rows:
            return
        groups = "".join(f"{group:>{9 * len(sizes)}}" for group in ("first", "warm", "p99"))
        yield self._format_heading("In the images, requests limited to the", groups)
        yield self._format_heading("CPU time of a function of so many MB", "".join(f"{size:>9}" for size in sizes) * 3)
        for each in rows:
            statistics = [each.at(size) for size in sizes]
            cells = [
                *(format_milliseconds(one.first if one else None) for one in statistics),
                *(format_milliseconds(one.warm if one else None) for one in statistics),
                *(format_milliseconds(one.warm_p99 if one else None) for one in statistics),
            ]
            yield f"{each.subject.name:<{NAME_WIDTH}}" + "".join(cells)
        yield "With 512 and 128 MB each request comes 25 ms after the last answer, with a full CPU quota and colder caches."
        yield ""

    def _format_traffic(self) -> Iterator[str]:
        """Yield how many connections a start opens. A client without keep-alive opens one for each request."""
        lines = []
        for each in self._figures:
            for service, starts in each.traffic.items():
                connections = max(traffic.connections for traffic in starts)
                requests = max(traffic.requests for traffic in starts)
                via = f"{connections:>9} for{requests:>5} requests" if connections else f"{requests:>9} datagrams"
                lines.append(f"{f'{each.subject.name} ({each.subject.place})':<{NAME_WIDTH + 11}}{service:<14}{via}")
        if lines:
            yield self._format_heading("Connections of one start, at most", "")
            yield from lines
            yield ""

    def _format_targets(self) -> Iterator[str]:
        checks = [*self._check_targets()]
        if checks:
            yield self._format_heading("Targets", "")
        for check in checks:
            mark, colour = ("✓", "32") if check.met else ("✗", "31")
            yield f"{self._colour(mark, colour)} {check.text} ({check.figures.subject.place})"

    def _check_targets(self) -> Iterator[Check]:
        """Compare the starts of each round, which ran under the same load of the machine; use the median of all rounds."""
        for each in self._figures:
            subject = each.subject
            if ours := self._find_other(each, subject.compare_with):
                ratio, cpu = find_ratio(ours, each, cold), find_ratio(ours, each, cpu_cold)
                text = f"{ours.subject.name} takes {ratio:.2f} times the cold start of {subject.name} ({cpu:.2f} times its CPU)"
                yield Check(f"{text}, at most {subject.at_most:.2f}", each, ratio <= subject.at_most)
            if subject.sampled and (unsampled := self._find_other(each, subject.name.removesuffix(SAMPLED))):
                more = median(one - other for one, other in pair_rounds(each, unsampled, cold))
                text = f"{subject.name} takes {more * 1e3:.0f} ms more in a cold start than when it is not sampled"
                yield Check(f"{text}, at most {SAMPLED_COLD_SECONDS * 1e3:.0f}", each, more <= SAMPLED_COLD_SECONDS)
            if least := self._find_other(each, subject.warm_floor):
                ratio = find_ratio(each, least, warm)
                text = f"{subject.name} takes {ratio:.2f} times a warm request of {least.subject.name}"
                yield Check(f"{text}, at most {WARM_FLOOR_RATIO:.2f}", each, ratio <= WARM_FLOOR_RATIO)

    def _find_other(self, figures: Figures, name: str) -> Figures | None:
        """Return the figures of the subject with this name in the same place; None if there is none."""
        return self._by_key.get((name, figures.subject.place))

    def _format_heading(self, text: str, columns: str) -> str:
        return self._colour(f"{text:<{NAME_WIDTH}}{columns}", "1")

    def _colour(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._coloured else text


def cold(start: Start) -> float:
    return start.cold


def cpu_cold(start: Start) -> float:
    return start.cpu_init + start.cpu_first


def warm(start: Start) -> float:
    return median(start.warm)


def pair_rounds(one: Figures, other: Figures, value: Callable[[Start], float]) -> Iterator[tuple[float, float]]:
    """Yield a value of both subjects for each round."""
    starts = ([start for start in each.starts if start.memory_mb == FULL_MB] for each in (one, other))
    for ours, theirs in zip(*starts, strict=True):
        yield value(ours), value(theirs)


def find_ratio(one: Figures, other: Figures, value: Callable[[Start], float]) -> float:
    """Return the median over all rounds of one subject's value divided by the other's."""
    return median(ours / theirs for ours, theirs in pair_rounds(one, other, value))


def format_milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return f"{'-':>9}"
    return f"{seconds * 1e3:>9.2f}" if abs(seconds) < 0.01 else f"{seconds * 1e3:>9.0f}"


def save(figures: Sequence[Figures], settings: Mapping[str, object], path: Path) -> None:
    """Write the figures of every start and the statistics to a JSON file, in seconds and bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine(), "kernel": platform.release()},
        "settings": settings,
        "subjects": [to_json(each) for each in figures],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def to_json(figures: Figures) -> dict[str, object]:
    subject = figures.subject
    by_memory = {size: figures.at(size) for size in (FULL_MB, *LIMITED_MB)}
    return {
        "name": subject.name,
        "place": subject.place,
        "command": subject.command,
        "image": subject.image,
        "floor": subject.floor,
        "statistics": {size: asdict(each) for size, each in by_memory.items() if each},
        "starts": [asdict(start) for start in figures.starts],
    }
