"""The subjects that `make bench` measures: our functions, their bare runtime, and the subjects of a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.user_pool import APP_CLIENT_ID, USER_POOL_ID
from local.paths import ROOT, VENVS

HANDLERS = Path(__file__).resolve().parent / "handlers"
EVENTS = ROOT / "tests" / "events"
BYTECODE = ROOT / ".local" / "bench" / "bytecode"
SAMPLED = ", sampled"  # end of a subject's name if it is another subject with sampled traces
FORMAT = """the file of subjects is a list of objects:
  name               as it appears in the tables; a name of ours replaces that subject
  command            of a process: program and arguments; of an image: what replaces its CMD
  image              of a container; without it the subject is a process
  working_directory  of the process, relative to the file; the file's folder by default
  volumes            of the container, as in `docker run --volume`
  environment        variables beside those that Lambda sets
  event              JSON file with the event of every request, relative to the file
  sampled            true if X-Ray samples the requests, false if not, null for requests without a trace
  expect             a text that the answer must contain
  floor              name of the subject that is its bare runtime
  warm_floor         name of the subject that does the least possible in a warm request
  compare_with       name of our subject that does the same
  at_most            how many times the subject's cold start ours may take
The last four name subjects of the same place, process or image. An image needs Python or a shell.
In the event and in environment these are replaced: <id-token>, <cognito-address>, <dynamodb-address>,
<connections-address> (host:port, TLS), <certificate> (the file to trust), <modulus> (of the key that signs tokens).
"""
PLACEHOLDER = re.compile(r"<[a-z]+(-[a-z]+)*>")


class SubjectError(ValueError):
    """A subject cannot be measured as it is described. The message names the subject and the reason."""


@dataclass(frozen=True)
class Subject:
    """A function to measure: as a container if `image` is set, else as a process."""

    name: str
    event: str  # JSON
    command: tuple[str, ...] = ()  # replaces the image's CMD
    image: str = ""
    volumes: tuple[str, ...] = ()  # of the container, as in `docker run --volume`
    working_directory: str = ""  # of the process
    environment: Mapping[str, str] = field(default_factory=dict)
    floor: str = ""  # name of the subject that is the bare runtime of this one
    warm_floor: str = ""  # name of the subject that does the least possible in a warm request
    compare_with: str = ""  # name of the subject of ours that does the same
    at_most: float = 0.0  # how many times this subject's cold start ours may take
    sampled: bool | None = False  # whether X-Ray samples the requests; None: they have no trace
    expect: str = ""  # text that the answer contains if the function did its work

    @property
    def place(self) -> str:
        return "image" if self.image else "process"

    @property
    def key(self) -> tuple[str, str]:
        """The name with the place, because a process and an image may have the same name."""
        return self.name, self.place

    def with_values(self, values: Mapping[str, str]) -> Subject:
        """Return the subject with the placeholders in its event and environment replaced."""
        environment = {name: fill(value, values) for name, value in self.environment.items()}
        for name, value in environment.items():
            if unknown := PLACEHOLDER.search(value):
                known = ", ".join(values)
                raise SubjectError(f"{self.name}: {unknown[0]} in environment variable {name} is none of {known}")
        return replace(self, event=fill(self.event, values), environment=environment)


def fill(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: values.get(match[0], match[0]), text)


# Our own


def list_built_in(tag: str | None) -> list[Subject]:
    """Return our functions and their bare runtime as processes, and as images if there is a tag."""
    return [subject for place in (None, *([tag] if tag else [])) for subject in list_subjects(place)]


def list_subjects(tag: str | None) -> list[Subject]:
    """Return our subjects as images with this tag, or as processes if it is None."""
    bare = build_own("bare", tag, load_event("default"))
    rs256 = with_environment(build_own("rs256", tag, load_event("authorizer", "<id-token>")), MODULUS="<modulus>")
    authorizer = Subject(
        **build_runtime("authorizer", "authorizer.handler", tag),
        name="authorizer deny",
        event=load_event("authorizer", "malformed"),
        floor="bare",
        expect='"Deny"',
    )
    authorizer = with_environment(
        authorizer,
        USER_POOL_ID=USER_POOL_ID,
        APP_CLIENT_ID=APP_CLIENT_ID,
        AWS_ENDPOINT_URL_COGNITO_IDENTITY_PROVIDER="https://<cognito-address>",
    )
    allow = replace(
        authorizer,
        name="authorizer allow",
        event=load_event("authorizer", "<id-token>"),
        warm_floor="rs256",
        expect='"Allow"',
    )
    websocket = Subject(
        **build_runtime("websocket", "websocket.handler", tag),
        name="websocket connect",
        event=load_event("connect"),
        floor="bare",
        expect="200",
    )
    websocket = with_environment(
        websocket,
        CONNECTION_TABLE_NAME="connections",
        CALLBACK_URL="https://<connections-address>/prod",
        AWS_ENDPOINT_URL_DYNAMODB="https://<dynamodb-address>",
    )
    message = replace(websocket, name="websocket message", event=load_event("default"))
    return [
        bare,
        replace(rs256, floor="bare"),
        authorizer,
        allow,
        replace(allow, name=f"{allow.name}{SAMPLED}", sampled=True, warm_floor=""),  # it sends a subsegment, too
        websocket,
        replace(websocket, name=f"{websocket.name}{SAMPLED}", sampled=True),
        message,
        replace(message, name=f"{message.name}{SAMPLED}", sampled=True),
    ]


def build_own(name: str, tag: str | None, event: str) -> Subject:
    """Return the subject for a handler in benchmarks/handlers, with the authorizer's packages."""
    subject = Subject(**build_runtime("authorizer", f"{name}.handler", tag), name=name, event=event)
    if tag:
        subject = replace(subject, volumes=(f"{HANDLERS}:/handlers:ro",))
    return with_environment(subject, PYTHONPATH="/handlers" if tag else str(HANDLERS))


def build_runtime(function: str, handler: str, tag: str | None) -> dict[str, Any]:
    """Return the members of Subject that start the handler with the function's own Python and packages."""
    if tag:
        return {"image": f"{function}:{tag}", "command": (handler,)}
    python = VENVS / function / "bin" / "python"
    # As in the images, which contain bytecode, no start compiles a module.
    bytecode = {"PYTHONPYCACHEPREFIX": str(BYTECODE)}
    command = (str(python), "-m", "awslambdaric", handler)
    return {"command": command, "working_directory": str(ROOT / "images" / function), "environment": bytecode}


def with_environment(subject: Subject, **variables: str) -> Subject:
    return replace(subject, environment={**subject.environment, **variables})


def load_event(name: str, id_token: str | None = None) -> str:
    """Return an example event as JSON, with this token if one is given."""
    loaded = json.loads((EVENTS / f"{name}.json").read_text())
    if id_token is not None:
        loaded["queryStringParameters"] = {"idToken": id_token}
        loaded["multiValueQueryStringParameters"] = {"idToken": [id_token]}
    return json.dumps(loaded)


# Of a file


def read(path: Path) -> list[Subject]:
    """Return the subjects of a JSON file; raise SubjectError if it is malformed."""
    try:
        listed = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SubjectError(f"{path}: {error}") from error
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise SubjectError(f"{path}: must be a list of objects, one for each subject")
    return [build_subject(each, path.parent) for each in listed]


# The type in JSON for each type of a member of Subject.
TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a string"),
    "float": ((int, float), "a number"),
    "bool | None": ((bool, type(None)), "true, false or null"),
    "tuple[str, ...]": (list, "a list of strings"),
    "Mapping[str, str]": (dict, "an object whose values are strings"),
}


def build_subject(described: dict[str, Any], folder: Path) -> Subject:
    """Return a subject. The paths of its event and working directory are relative to this folder."""
    check(described)
    path = folder / described["event"]
    try:
        event = path.read_text()
        json.loads(event)
    except (OSError, ValueError) as error:
        raise SubjectError(f"subject {described['name']}: event {path}: {error}") from error
    lists = {member: tuple(value) for member, value in described.items() if isinstance(value, list)}
    directory = str((folder / described.get("working_directory", ".")).resolve())
    return Subject(**{**described, **lists, "event": event, "working_directory": directory})


def check(described: dict[str, Any]) -> None:
    """Raise SubjectError if members are missing, unknown or of the wrong type."""
    name = described.get("name", "without a name")
    types = {each.name: TYPES[str(each.type)] for each in fields(Subject)}
    for member, value in described.items():
        if member not in types:
            raise SubjectError(f"subject {name}: {member} is unknown, members are {', '.join(types)}")
        json_type, meaning = types[member]
        texts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        if not isinstance(value, json_type) or not all(isinstance(text, str) for text in texts):
            raise SubjectError(f"subject {name}: {member} must be {meaning}")
    for member in ("name", "event"):
        if not described.get(member):
            raise SubjectError(f"subject {name}: {member} is missing")
    if not described.get("command") and not described.get("image"):
        raise SubjectError(f"subject {name}: it needs a command or an image")


def merge(own: list[Subject], others: list[Subject]) -> list[Subject]:
    """Return our subjects and the others. One with the name and place of ours replaces ours.

    Raises:
        SubjectError: a subject refers to one that does not exist in its place.
    """
    merged = {each.key: each for each in [*own, *others]}
    for each in merged.values():
        for member, name in list_references(each).items():
            if (name, each.place) not in merged:
                raise SubjectError(
                    f"subject {each.name} ({each.place}): {member} {name!r} is not among the subjects of this place"
                )
    return [*merged.values()]


def select(subjects: list[Subject], texts: list[str]) -> list[Subject]:
    """Return the subjects with one of the texts in their names, and those that they refer to."""
    chosen = [each for each in subjects if any(text in each.name for text in texts)]
    if not chosen:
        raise SubjectError(f"no subject has {' or '.join(texts)} in its name")
    keys = {(name, each.place) for each in chosen for name in (each.name, *list_references(each).values())}
    return [each for each in subjects if each.key in keys]


def list_references(subject: Subject) -> dict[str, str]:
    """Return the names of the subjects that this one refers to, by member."""
    members = {name: getattr(subject, name) for name in ("floor", "warm_floor", "compare_with")}
    return {member: name for member, name in members.items() if name}
