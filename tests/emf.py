"""CloudWatch's embedded metric format, by its specification.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

import pytest
from cfnlint.jsonschema import StandardValidator  # type: ignore[import-untyped]

NAME = {"type": "string", "minLength": 1, "maxLength": 255}
DIMENSION_SET = {"type": "array", "minItems": 0, "maxItems": 9, "items": NAME}
METRIC = {
    "type": "object",
    "required": ["Name"],
    "properties": {"Name": NAME, "Unit": {"enum": ["Count"]}},  # of the units, the one that we use
    "additionalProperties": False,
}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "properties": {
        "Namespace": NAME,
        "Dimensions": {"type": "array", "minItems": 1, "items": DIMENSION_SET},
        "Metrics": {"type": "array", "maxItems": 100, "items": METRIC},
    },
    "additionalProperties": False,
}
METADATA = {
    "type": "object",
    "required": ["Timestamp", "CloudWatchMetrics"],
    "properties": {"Timestamp": {"type": "integer"}, "CloudWatchMetrics": {"type": "array", "items": DIRECTIVE}},
    "additionalProperties": False,
}
LINE = {"type": "object", "required": ["_aws"], "properties": {"_aws": METADATA}}
Line = dict[str, Any]
LOG_RECORD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Metrics(NamedTuple):
    """The metrics of a log line.

    Attributes:
        values: by name.
        dimensions: the values of each dimension set, by name.
    """

    values: dict[str, int]
    dimensions: list[dict[str, str]]


NO_METRICS = Metrics({}, [])


def read_metrics(line: Line) -> Metrics:
    """Return the metrics that CloudWatch extracts from a line; fail if the specification forbids the line."""
    if "_aws" not in line:
        return NO_METRICS
    document = json.loads(json.dumps(line, default=str))
    assert [error.message for error in StandardValidator(LINE).iter_errors(document)] == []
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "WebSocketApi"
    values = {metric["Name"]: document[metric["Name"]] for metric in directive["Metrics"]}
    assert [value for value in values.values() if type(value) not in {int, float}] == []
    dimensions = [{name: document[name] for name in names} for names in directive["Dimensions"]]
    texts = [value for each in dimensions for value in each.values()]
    assert [value for value in texts if not (isinstance(value, str) and 0 < len(value) <= 1024)] == []
    assert len(str(document["_aws"]["Timestamp"])) == 13  # milliseconds
    return Metrics(values, dimensions)


def drop_metrics(line: Line) -> Line:
    """Return the other members of a line."""
    added = {*read_metrics(line).values, "FunctionName", "_aws"}
    return {name: value for name, value in line.items() if name not in added}


def read_lines(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> list[Line]:
    """Return the members of all log lines, by the names that they have in the runtime's JSON."""
    logged = [
        {"level": record.levelname, "message": record.getMessage(), **members(record)} for record in caplog.records
    ]
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in written:
        for name in ("timestamp", "logger", "requestId"):  # the runtime's formatter adds them to every record
            del line[name]
    return logged + written


def members(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a call passed in `extra`."""
    return {name: value for name, value in vars(record).items() if name not in LOG_RECORD}
