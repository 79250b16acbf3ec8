"""From source to image: the measured, reproducible form of a module.

>>> from broch.image import Image, Interface
>>> image = Image(app="demo", module="blink", files={"blink.py": b"..."}, main="blink.py",
...               interface=Interface(), runtime=bytes(32), deployer=bytes(32))
>>> Image.from_bytes(image.to_bytes()) == image
True
"""

from broch.image.image import Image
from broch.image.interface import (
    NAME_RULE,
    Interface,
    Port,
    PortKind,
    Shape,
    fits,
    is_name,
    spell,
)

__all__ = [
    "NAME_RULE",
    "Image",
    "Interface",
    "Port",
    "PortKind",
    "Shape",
    "fits",
    "is_name",
    "spell",
]
