"""The commands: parse, call, print. The one place with print, exit codes and rich.

`main` is the entry point of ``broch``. What each command prints, and its exit codes, is in
``docs/commands.md``.
"""

import sys

__all__ = ["main"]
INTERRUPTED = 130  # 128 + SIGINT


def main() -> None:
    """Run one command and exit; Ctrl-C ends it quietly, also while the command is being loaded."""
    try:
        from broch.cli import entry

        entry.main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
