"""Where things are in the memory of a node of Broch's (docs/sancus-abi.md)."""

from typing import Final

from broch.errors import UsageError
from broch.tee.sancus.layout import Layout

PERIPHERALS_END: Final = 0x0200
RANDOM: Final = 0x01B0
STACK: Final = 0x0400  # the host's; grows down
IN: Final = 0x0400
OUT: Final = 0x0800
BUFFER: Final = 0x0400  # bytes of IN, and of OUT
SECRET: Final = range(0x0C00, 0x4200)  # modules' secret sections
HOST: Final = range(0x5C00, 0x5E00)  # the host's code
EXIT: Final = 0x5C00
TEXT: Final = range(0x5E00, 0xFE00)  # modules' text
VECTORS: Final = range(0xFFE0, 0x10000)
SLOTS: Final = 4
TEXT_SIZE: Final = 0x2800  # bytes a slot
SECRET_SIZE: Final = 0x0D80


def slot(number: int) -> Layout:
    """The place of module ``number`` (0 to 3): all that it may fill.

    Raises:
        UsageError: there is no such place.
    """
    if not 0 <= number < SLOTS:
        raise UsageError(
            f"there is no place for module {number + 1}: a microcontroller has {SLOTS}",
            hint="put it on another node",
        )
    text, secret = TEXT.start + number * TEXT_SIZE, SECRET.start + number * SECRET_SIZE
    return Layout(
        public_start=text,
        public_end=text + TEXT_SIZE,
        secret_start=secret,
        secret_end=secret + SECRET_SIZE,
    )
