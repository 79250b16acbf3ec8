"""The store as authors see it: a mapping of plain values, none of them shared."""

import enum
from typing import Any

import pytest

from broch import StoreError, Struct
from broch.sdk.host import ModuleIdentity
from broch.sdk.store import Store


class Keeper:
    """As much of a host as a store needs."""

    def __init__(self, items: dict[str, Any] | None = None) -> None:
        self.items = items
        self.loads = 0
        self.changes = 0

    def load_store(self) -> dict[str, Any]:
        self.loads += 1
        if self.items is None:
            raise StoreError("rolled back")
        return dict(self.items)

    def store_changed(self) -> None:
        self.changes += 1

    def emit(self, port: int, value: Any) -> None: ...
    def request(self, port: int, value: Any) -> Any: ...
    def ocall(self, port: int, value: Any) -> Any: ...
    def derive_key(self, label: str) -> bytes:
        return bytes(32)

    def sign(self, data: bytes) -> bytes:
        return bytes(64)

    def identity(self) -> ModuleIdentity:
        raise NotImplementedError


def attached(items: dict[str, Any] | None = None) -> tuple[Store, Keeper]:
    store, keeper = Store(), Keeper({} if items is None else items)
    store._attach(keeper)
    return store, keeper


def test_it_is_a_mapping() -> None:
    store, _ = attached({"a": 1})
    store["b"] = 2
    del store["a"]
    assert dict(store) == {"b": 2}
    assert len(store) == 1
    assert "b" in store
    assert "a" not in store
    assert store.get("a", 5) == 5
    store.update(c=3)
    assert store.pop("c") == 3
    store.clear()
    assert dict(store) == {}


def test_it_is_loaded_once_and_only_when_it_is_used() -> None:
    store, keeper = attached({"a": 1})
    assert keeper.loads == 0
    assert store["a"] == 1
    store["a"] = 2
    assert store["a"] == 2
    assert keeper.loads == 1


def test_every_change_is_told_and_no_reading_is() -> None:
    store, keeper = attached({"a": 1})
    assert (store["a"], list(store), len(store)) == (1, ["a"], 1)
    assert keeper.changes == 0
    store["a"] = 2
    del store["a"]
    assert keeper.changes == 2


def test_what_fails_changes_nothing() -> None:
    store, keeper = attached()
    with pytest.raises(KeyError):
        del store["a"]
    with pytest.raises(TypeError):
        store["a"] = object()
    assert keeper.changes == 0
    assert dict(store) == {}


def test_a_store_that_cannot_be_believed_is_not_a_new_one() -> None:
    store = Store()
    store._attach(Keeper())
    for _ in range(2):
        with pytest.raises(StoreError, match="rolled back"):
            store["a"] = 1


def test_it_is_there_only_while_the_module_runs() -> None:
    with pytest.raises(RuntimeError, match="only while the module runs"):
        Store()["a"] = 1


def test_it_may_change_while_it_is_gone_through() -> None:
    store, _ = attached({"a": 1, "b": 2})
    for key in store:
        del store[key]
    assert dict(store) == {}


def test_a_repr_shows_nothing() -> None:
    store, _ = attached({"a": "secret"})
    assert repr(store) == "Store(sealed)"


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 0.5, "ü", b"\0", [], {}, [1, [2, {"x": None}]], {"a": {"b": [b""]}}],
)
def test_plain_values(value: object) -> None:
    store, _ = attached()
    store["a"] = value
    assert store["a"] == value
    assert type(store["a"]) is type(value)


class Reading(Struct):
    percent: float


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    AUTO = "auto"


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1}, bytearray(b"x"), Reading(percent=1.0), Level.LOW, Mode.AUTO, 1j, object()],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(value: object) -> None:
    """After a restart: a tuple as a list, a Struct as a dict, an enum as its value."""
    store, _ = attached()
    for nested in (value, [value], {"x": [value]}):
        with pytest.raises(TypeError, match=f"{type(value).__name__} is not one"):
            store["a"] = nested


def test_keys_are_text_at_every_depth() -> None:
    store, _ = attached()
    wrong: Any = 5
    with pytest.raises(TypeError, match="keys of the store are text, not int"):
        store[wrong] = 1
    with pytest.raises(TypeError, match="keys of a dict in the store are text"):
        store["a"] = [{5: 1}]


def test_reading_gives_what_was_put_in_whatever_happened_to_it_since() -> None:
    store, keeper = attached()
    put: list[Any] = [1, {"x": [2]}]
    store["a"] = put
    put[1]["x"].append(3)
    assert store["a"] == [1, {"x": [2]}]
    store["a"][1]["x"].append(4)
    assert store["a"] == [1, {"x": [2]}]
    assert keeper.changes == 1
    assert store._snapshot() == {"a": [1, {"x": [2]}]}
