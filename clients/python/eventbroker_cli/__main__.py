"""The command `eventbroker`; also `python -m eventbroker_cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line and exits; the codes are in exits.py."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc is loaded: its chatter is no answer
    try:
        from eventbroker_cli.program import app
    except ModuleNotFoundError as error:
        sys.exit(f"eventbroker: {error.name} is missing: pip install 'eventbroker[cli]'")
    app(prog_name="eventbroker")


if __name__ == "__main__":
    main()
