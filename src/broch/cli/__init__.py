"""The commands: parse, call, print. The one place with print, exit codes and rich.

`main` is the entry point of ``broch``. What each command prints, and its exit codes, is in
``docs/commands.md``.
"""

from broch.cli.entry import main

__all__ = ["main"]
