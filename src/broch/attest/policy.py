"""What a relying party accepts. Absent is never "anything": the defaults are the strict ones."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is accepted beyond the exact measurement and signer, which always have to match."""

    emulated: bool = False  # devices that only pretend to be hardware
    debug: bool = False  # enclaves whose memory their host can read
