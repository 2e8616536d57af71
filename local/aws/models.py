"""botocore's data about AWS, read once for the whole process: a session of its own would read every file again."""

from __future__ import annotations

import os
from functools import cache

import botocore.session
from botocore.model import ServiceModel

# The user's profile and files are for AWS. A profile that does not exist would be an error.
OWN_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


@cache
def get_session() -> botocore.session.Session:
    """Return a session without the user's AWS configuration."""
    return botocore.session.get_session(OWN_CONFIGURATION)


@cache
def load_service_model(service: str) -> ServiceModel:
    return get_session().get_service_model(service)
