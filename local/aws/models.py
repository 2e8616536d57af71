"""botocore's data about AWS, read once for the whole process: a session of its own would read every file again."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session


@cache
def get_session() -> botocore.session.Session:
    return botocore.session.get_session()


@cache
def load_service_model(service: str) -> Any:
    """Return botocore's ServiceModel of a service."""
    return get_session().get_service_model(service)
