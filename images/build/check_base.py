"""Refuse a base image that the functions cannot run on, before anything is installed.

The packages are wheels for glibc. On another C library, such as Alpine's musl, pip would install them, and the function
would fail at its first import with an error that does not name the cause. The script also runs on Pythons that are too
old, so that it can refuse them.
"""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.util import find_spec

OLDEST_PYTHON = (3, 11)  # the locked requirements are resolved for it
OLDEST_GLIBC = (2, 34)  # needed by the newest wheels that the Dockerfile lets pip install
PATHS = ("/usr/bin/python", "/usr/local/bin/python")


def check_base() -> str:
    """Return what is wrong with the base image; an empty string if nothing is."""
    library, release = platform.libc_ver()
    if library != "glibc" or parse_version(release) < OLDEST_GLIBC:
        return f"it has {f'{library} {release}'.strip() or 'another C library'}, the packages need glibc 2.34 or newer"
    if sys.version_info < OLDEST_PYTHON:
        return f"it has Python {platform.python_version()}, the packages need 3.11 or newer"
    if shutil.which("python") not in PATHS:
        return f"it has its python at {shutil.which('python')}, which must be {' or '.join(PATHS)}"
    if find_spec("pip") is None:
        return "it has no pip, which installs the packages"
    return ""


def parse_version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in release.split("."))


problem = check_base()
if problem:
    sys.exit(f"BASE_IMAGE cannot be used: {problem}. An image that can be used is python:3.13-slim-trixie.")
