"""The figures of a subject, in seconds and bytes, and their statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.subjects import Subject

# Lambda gives a function CPU time in proportion to its memory, one CPU at 1769 MB
# (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html).
FULL_MB = 1769
LIMITED_MB = (512, 128)
ENOUGH_FOR_P99 = 100


@dataclass(frozen=True)
class Traffic:
    """How many connections and requests a function's calls of one service took."""

    connections: int
    requests: int


@dataclass(frozen=True)
class Start:
    """One cold start and the warm requests after it."""

    memory_mb: int
    init: float
    first: float
    warm: Sequence[float]
    cpu_init: float
    cpu_first: float
    cpu_warm: float  # of all warm requests
    peak_memory: int
    instructions: int | None  # up to the first answer; None if the machine does not count them
    traffic: Mapping[str, Traffic]  # by service

    @property
    def cold(self) -> float:
        return self.init + self.first


@dataclass(frozen=True)
class Statistics:
    """Medians over starts, or over all their warm requests."""

    starts: int
    requests: int
    init: float
    first: float
    cold: float
    warm: float
    warm_p99: float | None  # None: too few requests
    cpu_cold: float
    cpu_warm: float
    peak_memory: float
    instructions: float | None


@dataclass(frozen=True)
class Figures:
    """All starts of a subject."""

    subject: Subject
    starts: list[Start] = field(default_factory=list)

    def at(self, memory_mb: int = FULL_MB) -> Statistics | None:
        """Return the statistics of the starts with this much memory, None if there are none."""
        starts = [start for start in self.starts if start.memory_mb == memory_mb]
        return summarize(starts) if starts else None

    @property
    def traffic(self) -> dict[str, list[Traffic]]:
        """The traffic of all starts, by service, without services that no start called."""
        services = self.starts[0].traffic if self.starts else {}
        by_service = {service: [start.traffic[service] for start in self.starts] for service in services}
        return {service: each for service, each in by_service.items() if any(start.requests for start in each)}


def summarize(starts: Sequence[Start]) -> Statistics:
    """Return the statistics of these starts."""
    warm = [seconds for start in starts for seconds in start.warm]
    counts = [start.instructions for start in starts if start.instructions is not None]
    return Statistics(
        starts=len(starts),
        requests=len(warm),
        init=median(start.init for start in starts),
        first=median(start.first for start in starts),
        cold=median(start.cold for start in starts),
        warm=median(warm),
        warm_p99=find_percentile(warm, 99) if len(warm) >= ENOUGH_FOR_P99 else None,
        cpu_cold=median(start.cpu_init + start.cpu_first for start in starts),
        cpu_warm=median(start.cpu_warm / len(start.warm) for start in starts),
        peak_memory=median(start.peak_memory for start in starts),
        instructions=median(counts) if counts else None,
    )


def find_percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that is greater than or equal to this percentage of the values (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
