"""JSON that means one thing: UTF-8, no key twice in an object, no NaN or Infinity (RFC 8259).

>>> decode(b'{"version": 1}', what="header")
{'version': 1}
"""

import json
from typing import Any, NoReturn

from broch.errors import DecodeError


def decode(data: bytes, *, what: str) -> Any:
    """The one value in ``data``, whose length the caller has bounded.

    Raises:
        DecodeError: it is not JSON, or could be read in two ways; ``what`` names the input.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as exc:
        raise DecodeError(0, f"not JSON: {exc}", what=what) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
