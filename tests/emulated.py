"""What tests of emulated devices share: a small image, and memory to keep things in."""

from typing import Final

from broch.image import Image, Interface

IMAGE: Final = Image(
    app="garden",
    module="valve",
    files={"main.py": b"pass\n"},
    main="main.py",
    interface=Interface(),
    runtime=bytes(32),
    deployer=bytes(32),
)


class Memory(dict[str, bytes]):
    """A device's durable memory."""

    def put(self, name: str, value: bytes) -> None:
        self[name] = value
