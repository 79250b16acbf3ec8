"""Private memory of a Python enclave that serves calls (proportions of shared pages left out)."""

import re

from common import Figure, run
from host import enclave

CODE = """
from broch import Module

module = Module("bench")


@module.entry
def length(text: str) -> int:
    return len(text)
"""


def figures() -> list[Figure]:
    """Measure."""
    with enclave(CODE) as running:
        port = running.interface.number("length")
        for _ in range(1000):
            running.call(port, b"\x81\xa4text\xa5hello")
        with open(f"/proc/{running.pid}/smaps_rollup", encoding="ascii") as file:
            kilobytes = dict(re.findall(r"(\w+): +(\d+) kB", file.read()))
    private = (int(kilobytes["Private_Clean"]) + int(kilobytes["Private_Dirty"])) / 1024
    return [
        Figure(name="enclave_private_mb", value=private, unit="MB", bar="<= 25"),
        Figure(name="enclave_resident_mb", value=int(kilobytes["Rss"]) / 1024, unit="MB"),
    ]


if __name__ == "__main__":
    run(figures)
