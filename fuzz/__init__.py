"""Fuzzers: whatever bytes come, a parser returns a value or raises one of our errors."""

from typing import Final

NAMES: Final = ("sgxs", "elf", "sdk_image", "sigstruct", "pem")  # of fuzz.targets.TARGETS
