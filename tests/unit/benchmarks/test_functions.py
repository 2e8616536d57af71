"""The parts of `make bench` whose errors nobody would notice: the file of subjects, the statistics, the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import FULL_MB, Figures, Start, Traffic, find_percentile, summarize
from benchmarks.report import Report, save
from benchmarks.subjects import Subject, SubjectError, list_built_in, merge, read, select

PEER: dict[str, Any] = {"name": "peer", "command": ["node", "peer.mjs"], "event": "event.json", "floor": "bare"}
SUBJECT = Subject(name="ours", event="{}")
START = Start(
    memory_mb=FULL_MB,
    init=0.1,
    first=0.02,
    warm=[0.001],
    cpu_init=0.09,
    cpu_first=0.01,
    cpu_warm=0.002,
    peak_memory=40_000_000,
    instructions=None,
    traffic={},
)

WriteSubjects = Callable[[Any], Path]


@pytest.fixture
def write_subjects(tmp_path: Path) -> WriteSubjects:
    """Return a function that writes a file of subjects, and the event that they name."""

    def write(described: Any) -> Path:
        (tmp_path / "event.json").write_text('{"token": "<id-token>", "routeKey": "$connect"}')
        path = tmp_path / "subjects.json"
        path.write_text(json.dumps(described))
        return path

    return write


# The file of subjects


def test_subject_has_its_event_and_runs_in_the_folder_of_the_file(
    write_subjects: WriteSubjects, tmp_path: Path
) -> None:
    (subject,) = read(write_subjects([PEER | {"sampled": None}]))

    assert (subject.name, subject.place, subject.command) == ("peer", "process", ("node", "peer.mjs"))
    assert json.loads(subject.event)["routeKey"] == "$connect"
    assert (subject.working_directory, subject.sampled) == (str(tmp_path), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name must be a string"),
        ({"name": ""}, "name is missing"),
        ({"command": "node peer.mjs"}, "subject peer: command must be a list of strings"),
        ({"command": []}, "subject peer: it needs a command or an image"),
        ({"environment": {"PORT": 1}}, "subject peer: environment must be an object whose values are strings"),
        ({"sampled": "yes"}, "subject peer: sampled must be true, false or null"),
        ({"at_most": "2"}, "subject peer: at_most must be a number"),
        ({"comand": []}, "subject peer: comand is unknown, members are name, event, command,"),
        ({"event": "missing.json"}, "subject peer: event .*missing.json"),
    ],
    ids=str,
)
def test_error_names_the_subject_and_what_is_wrong(
    write_subjects: WriteSubjects, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SubjectError, match=message):
        read(write_subjects([PEER | change]))


@pytest.mark.parametrize("described", [{}, ["peer"], "peer"], ids=str)
def test_file_must_be_a_list_of_objects(write_subjects: WriteSubjects, described: Any) -> None:
    with pytest.raises(SubjectError, match="must be a list of objects"):
        read(write_subjects(described))


def test_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "subjects.json").write_text("[")

    with pytest.raises(SubjectError, match=r"subjects\.json"):
        read(tmp_path / "subjects.json")


def test_subject_of_the_same_name_and_place_replaces_ours(write_subjects: WriteSubjects) -> None:
    own = list_built_in("dev")

    merged = merge(own, read(write_subjects([PEER | {"name": "authorizer deny"}])))

    assert len(merged) == len(own)
    assert [each.command[0] for each in merged if each.key == ("authorizer deny", "process")] == ["node"]
    assert [each.image for each in merged if each.key == ("authorizer deny", "image")] == ["authorizer:dev"]


def test_reference_to_a_subject_of_another_place_is_refused(write_subjects: WriteSubjects) -> None:
    peers = read(write_subjects([PEER | {"image": "peer", "floor": "bare"}]))

    with pytest.raises(SubjectError, match="'bare'"):
        merge(list_built_in(None), peers)


def test_selection_includes_the_subjects_that_its_members_refer_to(write_subjects: WriteSubjects) -> None:
    chosen = select(
        merge(list_built_in(None), read(write_subjects([PEER | {"compare_with": "authorizer deny"}]))), ["peer"]
    )

    assert [each.name for each in chosen] == ["bare", "authorizer deny", "peer"]


def test_selection_that_matches_no_subject_is_refused() -> None:
    with pytest.raises(SubjectError, match="pear"):
        select(list_built_in(None), ["pear"])


def test_placeholders_are_replaced_in_event_and_environment(write_subjects: WriteSubjects) -> None:
    (subject,) = read(write_subjects([PEER | {"environment": {"URL": "https://<dynamodb-address>/"}}]))

    filled = subject.with_values({"<id-token>": "eyJ", "<dynamodb-address>": "127.0.0.1:1"})

    assert json.loads(filled.event) == {"token": "eyJ", "routeKey": "$connect"}
    assert filled.environment == {"URL": "https://127.0.0.1:1/"}


def test_unknown_placeholder_is_refused() -> None:
    with pytest.raises(SubjectError, match=r"<dynamo-address> in environment variable URL"):
        replace(SUBJECT, environment={"URL": "https://<dynamo-address>"}).with_values({"<dynamodb-address>": "host:1"})


# Statistics


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 50), (98.5, 99), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent: float, value: int) -> None:
    assert find_percentile(range(100, 0, -1), percent) == value


def test_statistics_are_medians_over_starts_and_over_all_warm_requests() -> None:
    starts = [
        replace(START, init=1, first=9, warm=[1, 2], cpu_warm=4),
        replace(START, init=2, first=1, warm=[3, 4], cpu_warm=2),
        replace(START, init=9, first=2, warm=[5, 6], cpu_warm=8),
    ]

    summary = summarize(starts)

    assert (summary.init, summary.first, summary.cold) == (2, 2, 10)  # the sum is a median of sums
    assert (summary.warm, summary.cpu_warm) == (3.5, 2)
    assert (summary.starts, summary.requests, summary.instructions) == (3, 6, None)


def test_p99_needs_a_hundred_requests() -> None:
    few, enough = replace(START, warm=[0.001] * 99), replace(START, warm=[0.001] * 98 + [0.009] * 2)

    assert summarize([few]).warm_p99 is None
    assert summarize([enough]).warm_p99 == 0.009


def test_starts_with_different_memory_have_separate_statistics() -> None:
    figures = Figures(SUBJECT, [START, replace(START, memory_mb=128, first=2.0)])

    full, limited = figures.at(), figures.at(128)

    assert full
    assert limited
    assert (full.first, limited.first, figures.at(512)) == (0.02, 2.0, None)


# The report


def build_figures(name: str, colds: list[float], **changes: Any) -> Figures:
    return Figures(replace(SUBJECT, name=name, **changes), [replace(START, init=cold, first=0) for cold in colds])


def test_subjects_are_compared_round_by_round() -> None:
    ours = build_figures("ours", [2, 30, 4])
    peer = build_figures("peer", [1, 10, 4], compare_with="ours", at_most=1.5)

    report = str(Report([ours, peer], coloured=False))

    assert "✗ ours takes 2.00 times the cold start of peer (1.00 times its CPU), at most 1.50 (process)" in report


@pytest.mark.parametrize(
    ("sampled", "line"), [(1.030, "✓ ours, sampled takes 30 ms"), (1.050, "✗ ours, sampled takes 50 ms")]
)
def test_sampled_start_may_take_forty_milliseconds_more(sampled: float, line: str) -> None:
    report = str(
        Report([build_figures("ours", [1.0]), build_figures("ours, sampled", [sampled], sampled=True)], coloured=False)
    )

    assert line in report


def test_time_above_the_bare_runtime_is_a_column() -> None:
    report = str(Report([build_figures("bare", [0.050]), build_figures("ours", [0.120], floor="bare")], coloured=False))

    (row,) = [line.split() for line in report.splitlines() if line.startswith("ours")]
    assert row[1:5] == ["120", "0.00", "120", "70"]


def test_report_counts_the_connections_of_a_client_without_keep_alive() -> None:
    kept = replace(START, traffic={"DynamoDB": Traffic(1, 3), "Cognito": Traffic(0, 0)})
    not_kept = replace(START, traffic={"DynamoDB": Traffic(connections=3, requests=3), "Cognito": Traffic(0, 0)})

    report = str(Report([Figures(SUBJECT, [kept, not_kept])], coloured=False))

    (row,) = [line.split() for line in report.splitlines() if "DynamoDB" in line]
    assert row == ["ours", "(process)", "DynamoDB", "3", "for", "3", "requests"]
    assert "Cognito" not in report


def test_json_has_every_start_and_no_token(tmp_path: Path) -> None:
    subject = replace(SUBJECT, event='{"idToken": "eyJ"}')

    save([Figures(subject, [START])], {"rounds": 1}, tmp_path / "new" / "bench.json")

    saved = (tmp_path / "new" / "bench.json").read_text()
    (described,) = json.loads(saved)["subjects"]
    assert described["starts"][0]["init"] == described["statistics"][str(FULL_MB)]["init"] == 0.1
    assert "eyJ" not in saved
