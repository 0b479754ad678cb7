"""`python -m darkroom` is the command `darkroom`."""

from __future__ import annotations

import sys


def main() -> None:
    """The command, Ctrl-C while it is still being loaded included."""
    try:
        from darkroom.cli.main import main as command
    except KeyboardInterrupt:
        sys.stderr.write("darkroom: Stopped. Nothing was begun.\n")
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
