"""The sealed store of a module: a mapping that survives restarts and refuses rollback."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from broch.sdk.host import Host


class Store(MutableMapping[str, Any]):
    """Text keys to plain values: None, bool, int, float, str, bytes, and lists and dicts of them.

    What a message changed becomes durable at once, when its function returns, and before anything
    that it emits, requests or answers afterwards leaves the enclave. Reading gives the value that
    was put in, as a copy; to change a list or dict inside, assign it again.

    Raises:
        TypeError: a key that is not text, or a value that is not plain.
        StoreError: the store that the host offers cannot be believed.
    """

    def __init__(self) -> None:
        self._host: Host | None = None
        self._items: dict[str, Any] | None = None

    def _attach(self, host: Host) -> None:
        self._host = host

    def _loaded(self) -> dict[str, Any]:
        if self._items is None:
            if self._host is None:
                raise RuntimeError("a module's store can be used only while the module runs")
            self._items = self._host.load_store()
        return self._items

    def _snapshot(self) -> dict[str, Any]:
        return dict(self._loaded())

    def __getitem__(self, key: str) -> Any:
        return _copy(self._loaded()[key])

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"keys of the store are text, not {type(key).__name__}")
        self._loaded()[key] = _copy(value)
        self._changed()

    def __delitem__(self, key: str) -> None:
        del self._loaded()[key]
        self._changed()

    def _changed(self) -> None:
        if self._host is not None:
            self._host.store_changed()

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._loaded()))

    def __len__(self) -> int:
        return len(self._loaded())

    def __repr__(self) -> str:
        return "Store(sealed)"


def _copy(value: Any) -> Any:
    """A copy that shares nothing; raises :class:`TypeError` for what would not come back equal."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return value
    if kind is list:
        return [_copy(item) for item in value]
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise TypeError("keys of a dict in the store are text")
        return {key: _copy(item) for key, item in value.items()}
    raise TypeError(f"the store holds plain values only, and {kind.__name__} is not one")
