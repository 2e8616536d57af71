"""`make bench`: measure cold starts and warm requests of both functions, of their bare runtime and of other subjects.

Each round starts each subject once. The init phase is the time from the start of the subject to its first request for an
invocation. A request is the time from the invocation to its answer. The services that a subject calls use TLS, as on AWS,
and answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.launchers import LaunchError
from benchmarks.measurement import measure
from benchmarks.report import Report, save
from benchmarks.subjects import FORMAT, SubjectError, list_built_in, merge, read, select
from local.lambda_.containers import Containers, has_engine
from local.paths import ROOT

OUTPUT = ROOT / ".local" / "bench.json"
BUSY_LOAD = 0.5  # load average before the run
LEGEND = """\
Medians of {rounds} alternating cold starts of each subject and of the warm requests after them, in ms.
"sum" is how long a client waits at a cold start: init and first request. "- bare" is the sum minus that of the bare
runtime. Files were in the page cache and services answered at once: on Lambda it takes longer.
"""


def say_round(number: int, *, rounds: int) -> None:
    """Show which round runs; round 0 fills caches."""
    text = f"round {number} of {rounds}" if number else "filling caches"
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if number == rounds else "", flush=True, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.functions",
        description=__doc__,
        epilog=FORMAT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--subjects", type=Path, metavar="FILE", help="JSON file of more subjects, see below")
    what.add_argument(
        "--only", action="append", metavar="TEXT", help="only subjects with this text in their names; may be repeated"
    )
    what.add_argument("--tag", help="measure images that have this tag, instead of building them")
    what.add_argument("--no-images", action="store_true", help="measure processes only")
    how = parser.add_argument_group("how often")
    how.add_argument("--rounds", type=parse_positive, default=15, help="cold starts of each subject (15)")
    how.add_argument("--requests", type=parse_positive, default=25, help="warm requests after each cold start (25)")
    result = parser.add_argument_group("result")
    result.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE", help="JSON file for all figures (.local/bench.json)"
    )
    return parser


def parse_positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def build_images_unless_tagged(arguments: argparse.Namespace) -> tuple[str | None, str]:
    """Build the images unless a tag is given; return the tag to measure, or None and the reason for measuring no images."""
    if arguments.no_images:
        return None, "--no-images was given"
    if not has_engine():
        return None, "no Docker engine with buildx answers"
    if arguments.tag is None:
        asyncio.run(Containers().prepare({"authorizer", "websocket"}))
    return arguments.tag or os.environ.get("TAG", "dev"), ""


def main() -> int:
    arguments = build_parser().parse_args()
    load = os.getloadavg()[0]
    try:
        tag, no_images = build_images_unless_tagged(arguments)
        others = read(arguments.subjects) if arguments.subjects else []
        subjects = merge(list_built_in(tag), [each for each in others if tag or not each.image])
        subjects = select(subjects, arguments.only or [""])
        say = partial(say_round, rounds=arguments.rounds)
        figures, not_counted = asyncio.run(measure(subjects, arguments.rounds, arguments.requests, say))
    except (SubjectError, LaunchError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    settings = {"rounds": arguments.rounds, "requests": arguments.requests, "tag": tag, "loadBefore": load}
    save(figures, settings, arguments.output)

    print(LEGEND.format(rounds=arguments.rounds))
    print(Report(figures, coloured=sys.stdout.isatty()), end="\n\n")
    if load > BUSY_LOAD:
        print(
            f"Other programs used this machine (load {load:.1f}), which also changes ratios: run this again when it is idle."
        )
    if no_images:
        print(f"There are no figures of images and none under CPU limits: {no_images}.")
    if not_counted:
        print(f"There are no instruction counts: perf_event_open answers {not_counted.strerror!r}.")
    print(f"All figures are in {arguments.output}.")
    print("Next: put another function beside these with --subjects FILE; --help describes the file.")
    return 0


if __name__ == "__main__":
    if not Path("/proc/self/status").exists():
        sys.exit("memory and CPU of processes are read from /proc, so this runs on Linux only")
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
