"""Images and commands on their way to the device: what runs is what was built, or nothing does."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broch.app.agent_messages import (
    FrameKind,
    Load,
    Loaded,
    NotLoaded,
    Route,
    Routes,
    command,
    decode_command,
    decode_report,
    report,
)
from broch.errors import PolicyError, UntrustedError, UsageError
from broch.image import Image
from broch.tee import registry
from broch.tee.contract import Packed, PackSettings

from .bench import own_device
from .wire import Bend, Frame, Wire, flip
from .world import Plan, Stage

TEES = ("sgx", "trustzone", "keystone")


def on_commands(change: Callable[[Any], Iterable[Any]]) -> Bend:
    """Bend what the deployer commands."""

    def bend(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] != FrameKind.COMMAND:
            return [seen.message]
        return [command(order) for order in change(decode_command(seen.message))]

    return bend


def on_load(module: str, change: Callable[[Load], Load]) -> Callable[[Wire], None]:
    """Bend the loading of one module."""

    def bend(order: Any) -> Iterable[Any]:
        mine = isinstance(order, Load) and order.module == module
        return [change(order) if mine else order]

    def set_up(wire: Wire) -> None:
        wire.bend = on_commands(bend)

    return set_up


def with_data(order: Load, data: bytes) -> Load:
    return msgspec.structs.replace(order, data=data)


@pytest.mark.parametrize("tee", TEES)
@pytest.mark.parametrize(
    "where",
    ["middle", *(pytest.param(where, marks=pytest.mark.slow) for where in ("head", "end"))],
)
def test_an_altered_image_is_not_let_in(stage: Stage, tee: str, where: str) -> None:
    def alter(order: Load) -> Load:
        at = {"head": 40, "middle": len(order.data) // 2, "end": -1}[where]
        return with_data(order, flip(order.data, at))

    error = stage.refusal(Plan(name=f"altered-{tee}", tee=tee), on_load("source", alter))
    # Without a signature, an image can be broken so that its code fails before it is attested.
    assert error.exit_code in ((1, 3, 4, 5) if tee == "keystone" else (3, 4, 5))
    assert error.place is not None
    assert error.place.startswith("source"), error


def test_altered_source_code_is_not_let_in(stage: Stage) -> None:
    """The one change that an adversary wants: other code under the same name."""

    def alter(order: Load) -> Load:
        assert order.data.count(b"reading.emit(r)") == 1
        return with_data(order, order.data.replace(b"reading.emit(r)", b"reading.emit(9)"))

    error = stage.refusal(Plan(name="code"), on_load("source", alter))
    assert isinstance(error, PolicyError)
    assert "measurement" in error.message


@pytest.mark.parametrize("tee", ["sgx", "trustzone"])
def test_an_altered_signature_is_not_let_in(stage: Stage, tee: str) -> None:
    def alter(order: Load) -> Load:
        assert order.signature is not None
        return msgspec.structs.replace(order, signature=flip(order.signature, 600))

    error = stage.refusal(Plan(name=f"signature-{tee}", tee=tee), on_load("source", alter))
    assert error.exit_code in (3, 4)


@pytest.mark.parametrize("tee", ["sgx", "trustzone"])
def test_a_missing_signature_is_not_let_in(stage: Stage, tee: str) -> None:
    def alter(order: Load) -> Load:
        return msgspec.structs.replace(order, signature=None)

    error = stage.refusal(Plan(name=f"unsigned-{tee}", tee=tee), on_load("source", alter))
    assert error.exit_code in (3, 4)


@pytest.mark.parametrize("tee", ["sgx", "trustzone"])
def test_an_image_signed_anew_by_the_adversary_is_not_let_in(stage: Stage, tee: str) -> None:
    """Same code, another signer: keys that a TEE binds to the signer would be the adversary's."""
    kind = registry.find(tee)
    key = kind.new_signing_key()

    def sign(order: Load) -> Load:
        image = image_of(tee, order)
        packed = kind.pack(image, PackSettings(), key)
        return msgspec.structs.replace(order, data=packed.data, signature=packed.signature)

    error = stage.refusal(Plan(name=f"signer-{tee}", tee=tee), on_load("source", sign))
    assert isinstance(error, PolicyError | UntrustedError)
    assert "sign" in error.message


def image_of(tee: str, order: Load) -> Image:
    """The image inside a packed one: it is no secret, any device takes it out."""
    packed = Packed(tee=tee, data=order.data, signature=order.signature)
    return own_device(tee).load(packed).image


@pytest.mark.parametrize("tee", TEES)
def test_two_modules_swapped_are_not_let_in(stage: Stage, tee: str) -> None:
    held: list[Load] = []

    def swap(order: Any) -> Iterable[Any]:
        if not isinstance(order, Load) or order.module not in ("source", "twin"):
            return [order]
        held.append(order)
        if len(held) < 2:
            return []
        one, two = held
        take = msgspec.structs.replace
        return [
            take(one, data=two.data, signature=two.signature),
            take(two, data=one.data, signature=one.signature),
        ]

    def set_up(wire: Wire) -> None:
        wire.bend = on_commands(swap)

    error = stage.refusal(Plan(name=f"swapped-{tee}", tee=tee), set_up)
    assert isinstance(error, UntrustedError)
    assert "another module's" in error.message
    assert error.place in ("source", "twin")


@pytest.mark.parametrize("tee", TEES)
def test_an_older_version_is_not_let_in(stage: Stage, tee: str) -> None:
    plan = Plan(name=f"older-{tee}", tee=tee, source="version = 1")
    old: list[Load] = []

    def keep(order: Load) -> Load:
        old.append(order)
        return order

    stage.end(stage.begin(plan, on_load("source", keep)))

    def put_back(order: Load) -> Load:
        return msgspec.structs.replace(order, data=old[0].data, signature=old[0].signature)

    newer = replace(plan, source="version = 2", source_code="\n# repaired\n")
    error = stage.refusal(newer, on_load("source", put_back))
    assert isinstance(error, PolicyError)
    stage.end(stage.begin(newer))
    error = stage.refusal(newer, on_load("source", put_back))
    assert isinstance(error, PolicyError)


def test_an_image_for_another_deployer_is_not_let_in(stage: Stage) -> None:
    """The adversary's own key in the place of the deployer's: the module would obey it."""
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()

    def replace_key(order: Load) -> Load:
        real = stage.home.deployer_key().public_key().public_bytes_raw()
        assert order.data.count(real) == 1
        return with_data(order, order.data.replace(real, public))

    error = stage.refusal(Plan(name="deployer"), on_load("source", replace_key))
    assert isinstance(error, PolicyError)
    assert "measurement" in error.message


def test_a_debug_image_is_not_let_in(stage: Stage) -> None:
    """What a debugger could read is refused, though it is the same code."""
    plan = Plan(name="debug", policy="emulated = true\ndebug = true")
    debug: list[Load] = []

    def keep(order: Load) -> Load:
        debug.append(order)
        return order

    stage.end(stage.begin(plan, on_load("source", keep)))

    def put_in(order: Load) -> Load:
        return msgspec.structs.replace(order, data=debug[0].data, signature=debug[0].signature)

    strict = replace(plan, policy="emulated = true")
    error = stage.refusal(strict, on_load("source", put_in))
    assert isinstance(error, PolicyError)


def test_emulated_devices_are_refused_by_a_policy_that_does_not_name_them(stage: Stage) -> None:
    for tee in TEES:
        plan = Plan(name=f"real-{tee}", tee=tee, policy="emulated = false")
        error = stage.refusal(plan, lambda wire: None)
        assert isinstance(error, PolicyError)
        assert "the policy accepts real devices only" in error.message
        assert error.hint is not None
        assert "policy" not in error.hint


# Other commands, and what agents report.


def test_redirected_routes_bring_nothing_where_it_does_not_belong(stage: Stage) -> None:
    """Events of both connections go to the other's end: neither opens there."""

    def redirect(order: Any) -> Iterable[Any]:
        if not isinstance(order, Routes):
            return [order]
        other = {1: 2, 2: 1}
        routes = [
            Route(r.connection, r.epoch, *ends)
            for r in order.routes
            for ends in [
                next(
                    (o.source, o.target)
                    for o in order.routes
                    if o.connection == other.get(r.connection, r.connection)
                )
            ]
        ]
        return [msgspec.structs.replace(order, routes=routes)]

    def set_up(wire: Wire) -> None:
        wire.bend = on_commands(redirect)

    world = stage.begin(Plan(name="routes"), set_up)

    async def work() -> None:
        await world.feed(3)
        await world.feed(3, module="twin")
        assert await world.call("source", "double", 3) == "6"

    stage.do(work())
    world.check_promise()
    stage.end(world)


def test_routes_under_another_epoch_bring_nothing(stage: Stage) -> None:
    def shift(order: Any) -> Iterable[Any]:
        if not isinstance(order, Routes):
            return [order]
        routes = [msgspec.structs.replace(r, epoch=r.epoch + 1) for r in order.routes]
        return [msgspec.structs.replace(order, routes=routes)]

    def set_up(wire: Wire) -> None:
        wire.bend = on_commands(shift)

    world = stage.begin(Plan(name="epochs"), set_up)

    async def work() -> None:
        await world.feed(3)
        assert str(await world.call("source", "double", 3)).startswith("failed: ")

    stage.do(work())
    world.check_promise()
    assert world.acted == []
    stage.end(world)


def test_an_agent_that_refuses_for_no_reason_says_so_itself(stage: Stage) -> None:
    """What an agent reports is its own word; the user is told whose."""

    def refuse(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] == FrameKind.REPORT:
            said = decode_report(seen.message)
            if isinstance(said, Loaded):
                lie = {"code": "usage", "message": "no", "place": None, "hint": "trust me"}
                return [report(NotLoaded(said.handle, lie))]
        return [seen.message]

    def set_up(wire: Wire) -> None:
        wire.bend = refuse

    error = stage.refusal(Plan(name="liar"), set_up)
    assert isinstance(error, UsageError)
    assert error.place in ("source", "twin", "actor")
