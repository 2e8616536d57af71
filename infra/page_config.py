"""Write the page's config.json from the file that `npx cdk deploy --outputs-file` wrote."""

import argparse
import json
from pathlib import Path
from typing import Any

OUTPUT = "PageConfig"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.page_config", description=__doc__)
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs.json"))
    parser.add_argument("target", nargs="?", type=Path, default=Path("frontend/public/config.json"))
    paths = parser.parse_args(arguments)
    stack, config = read_page_config(paths.outputs)
    try:
        paths.target.parent.mkdir(parents=True, exist_ok=True)
        paths.target.write_text(json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise SystemExit(f"{paths.target} cannot be written: {error.strerror}; name another file") from error
    print(f"{paths.target} now has the settings of stack {stack}; next: cd frontend && npm run dev")


def read_page_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the only stack that has the output, and the output's value.

    Raises:
        SystemExit: the file does not have exactly one valid output; the message says what to do next.
    """
    deploy = f"run `npx cdk deploy --outputs-file {path}`"
    try:
        stacks = parse_object(path.read_text())
    except FileNotFoundError:
        raise SystemExit(f"{path} does not exist; {deploy} first") from None
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}; {deploy}") from error
    except (TypeError, ValueError) as error:
        raise SystemExit(f"{path} must be a JSON object of stacks: {error}; {deploy} again") from error

    values = {
        stack: outputs[OUTPUT] for stack, outputs in stacks.items() if isinstance(outputs, dict) and OUTPUT in outputs
    }
    if not values:
        known = ", ".join(stacks) or "none"
        raise SystemExit(
            f"{path} has no output {OUTPUT} (stacks: {known}): an older version is deployed; {deploy} again"
        )
    if len(values) > 1:
        raise SystemExit(
            f"{path} has the output {OUTPUT} of {', '.join(values)}, but a page has one stack; "
            f"run `npx cdk deploy STACK --outputs-file {path}` with one of them"
        )
    ((stack, value),) = values.items()
    try:
        return stack, parse_object(value)
    except (TypeError, ValueError) as error:
        raise SystemExit(f"{path}: {OUTPUT} of {stack} must be a JSON object: {error}; {deploy} again") from error


def parse_object(text: str) -> dict[str, Any]:
    """Return a JSON object; raise ValueError or TypeError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"it is {value!r:.60}")
    return value


if __name__ == "__main__":
    main()
