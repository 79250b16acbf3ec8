"""Joins on a hostile wire: no evidence but the true one is believed, no keys but the deployer's."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broch.app import module_run
from broch.app.agent_messages import FrameKind, Load, decode_command
from broch.enclave import join
from broch.enclave.messages import Kind
from broch.errors import UndecidedError, UntrustedError
from broch.tee import registry
from broch.tee.contract import Packed

from .bench import own_device
from .wire import Frame, Wire, flip
from .world import Plan, Stage, World

TEES = ("sgx", "trustzone", "keystone")
FIRST = 1  # the handle of the module that is loaded first


def on(kind: Kind, change: Callable[[bytes], Iterable[bytes]], handle: int = FIRST) -> Any:
    """Bend the first module's messages of this kind: what is in them."""

    def bend(seen: Frame) -> Iterable[bytes]:
        if not seen.is_addressed or seen.kind != kind or seen.handle != handle:
            return [seen.message]
        return [seen.with_inner(inner) for inner in change(seen.inner)]

    def set_up(wire: Wire) -> None:
        wire.bend = bend

    return set_up


def public() -> bytes:
    return X25519PrivateKey.generate().public_key().public_bytes_raw()


EVIDENCE: dict[str, Callable[[bytes], bytes]] = {
    "a key of its own to seal to": lambda m: m[:1] + public() + m[33:],
    "a key of its own to sign with": lambda m: m[:33] + os.urandom(32) + m[65:],
    "the first byte": lambda m: flip(m, 65),
    "a byte of the report data": lambda m: flip(m, 65 + 64 + 8 + 5),
    "a byte of the report's signature": lambda m: flip(m, 65 + 64 + 8 + 1024 + 5),
    "the last byte": lambda m: flip(m, -1),
    "cut off": lambda m: m[:-1],
    "a byte more": lambda m: m + b"\x00",
    "nothing": lambda m: m[:1],
    "keys without evidence": lambda m: m[:65],
    "noise": lambda m: m[:65] + os.urandom(len(m) - 65),
}


@pytest.mark.parametrize("how", EVIDENCE)
def test_altered_evidence_is_not_believed(stage: Stage, how: str) -> None:
    set_up = on(Kind.EVIDENCE, lambda m: [EVIDENCE[how](m)])
    error = stage.refusal(Plan(name="evidence"), set_up)
    assert error.exit_code in (3, 4)
    assert error.code in ("malformed", "untrusted")


@pytest.mark.parametrize("tee", ["sgx", "trustzone"])
def test_an_altered_quote_is_not_believed(stage: Stage, tee: str) -> None:
    set_up = on(Kind.EVIDENCE, lambda m: [flip(m, 65 + (len(m) - 65) // 2)])
    error = stage.refusal(Plan(name=f"quote-{tee}", tee=tee), set_up)
    assert error.exit_code in (3, 4, 6)


def test_evidence_for_another_nonce_is_not_believed(stage: Stage) -> None:
    error = stage.refusal(Plan(name="nonce"), on(Kind.CHALLENGE, lambda m: [flip(m, 7)]))
    assert isinstance(error, UntrustedError)
    assert "not an answer to this challenge" in error.message
    assert error.place in ("source", "twin", "actor")


def test_old_evidence_is_not_believed(stage: Stage) -> None:
    old: list[bytes] = []

    def keep(message: bytes) -> Iterable[bytes]:
        old.append(message)
        return [message]

    plan = Plan(name="old")
    stage.end(stage.begin(plan, on(Kind.EVIDENCE, keep)))
    error = stage.refusal(plan, on(Kind.EVIDENCE, lambda m: [old[0]]))
    assert isinstance(error, UntrustedError)
    assert "it is old, or another module's" in error.message


def test_evidence_of_another_module_is_not_believed(stage: Stage) -> None:
    """Both are true, fresh and from this device; each was asked of the other."""
    held: list[Frame] = []

    def swap(seen: Frame) -> Iterable[bytes]:
        if not seen.is_addressed or seen.kind != Kind.EVIDENCE or seen.node != "a":
            return [seen.message]
        held.append(seen)
        if len(held) < 2:
            return []
        return [held[0].with_inner(held[1].inner), held[1].with_inner(held[0].inner)]

    def set_up(wire: Wire) -> None:
        wire.bend = swap

    error = stage.refusal(Plan(name="crossed"), set_up)
    assert isinstance(error, UntrustedError)
    assert "another module's" in error.message


@pytest.mark.parametrize("tee", TEES)
def test_evidence_of_a_device_of_its_own_is_not_believed(stage: Stage, tee: str) -> None:
    """All is as it should be, nonce and code and format, but for whose device it is."""
    plan = Plan(name=f"own-{tee}", tee=tee)
    loads: dict[int, Load] = {}
    nonces: dict[int, bytes] = {}

    def play_enclave(seen: Frame) -> Iterable[bytes]:
        if seen.message[0] == FrameKind.COMMAND:
            order = decode_command(seen.message)
            if isinstance(order, Load):
                loads[order.handle] = order
        if seen.is_addressed and seen.kind == Kind.CHALLENGE:
            nonces[seen.handle] = seen.inner[1:]
        if not seen.is_addressed or seen.kind != Kind.EVIDENCE or seen.node != "a":
            return [seen.message]
        order, kind = loads[seen.handle], registry.find(tee)
        device = own_device(tee)
        loaded = device.load(Packed(tee=tee, data=order.data, signature=order.signature))
        keys = join.ModuleKeys(public(), os.urandom(32))
        data = join.report_data(
            nonces[seen.handle], keys, plan.name, order.module, kind.report_data_size
        )
        evidence = device.evidence(loaded.identity, data)
        return [seen.with_inner(bytes([Kind.EVIDENCE]) + keys.exchange + keys.signing + evidence)]

    def set_up(wire: Wire) -> None:
        wire.bend = play_enclave

    error = stage.refusal(plan, set_up)
    assert isinstance(error, UntrustedError), error


# Grants: keys come from the deployer, go to whom it attested, and once.


def own_grant(nonce: bytes, keys: join.ModuleKeys, key: Ed25519PrivateKey, serial: int) -> bytes:
    """Keys of the adversary's own for connection 1, in perfect form."""
    end = join.Connection(1, "input", "act", "source.reading", "aes-128-gcm", bytes(16), 1000)
    return join.grant(join.Terms(serial, bytes(32), [end]), nonce, keys, key)


GRANTS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "the signature": lambda m: [flip(m, 1)],
    "what is sealed": lambda m: [flip(m, 70)],
    "the last byte": lambda m: [flip(m, -1)],
    "cut off": lambda m: [m[:-1]],
}


@pytest.mark.parametrize("how", GRANTS)
def test_an_altered_grant_is_refused(stage: Stage, how: str) -> None:
    error = stage.refusal(Plan(name="grant"), on(Kind.GRANT, GRANTS[how]))
    assert isinstance(error, UntrustedError)
    assert "refused its grant: the grant is not signed by the deployer" in error.message


def test_grants_of_two_modules_crossed_are_refused(stage: Stage) -> None:
    held: list[Frame] = []

    def swap(seen: Frame) -> Iterable[bytes]:
        if not seen.is_addressed or seen.kind != Kind.GRANT or seen.node != "a":
            return [seen.message]
        held.append(seen)
        if len(held) < 2:
            return []
        return [held[0].with_inner(held[1].inner), held[1].with_inner(held[0].inner)]

    def set_up(wire: Wire) -> None:
        wire.bend = swap

    error = stage.refusal(Plan(name="crossed-grants"), set_up)
    assert isinstance(error, UntrustedError)
    assert "refused its grant" in error.message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: [flip(m, 5)], id="altered"),
        pytest.param(lambda m: [m[:1] + os.urandom(32)], id="forged"),
        pytest.param(lambda m: [m[:20]], id="cut off"),
        pytest.param(lambda m: [m[:1]], id="empty"),
    ],
)
def test_a_bent_confirmation_is_not_believed(
    stage: Stage, change: Callable[[bytes], Iterable[bytes]]
) -> None:
    error = stage.refusal(Plan(name="confirm"), on(Kind.CONFIRM, change))
    assert isinstance(error, UntrustedError)
    assert "did not confirm its connections" in error.message


@pytest.mark.parametrize("kind", [Kind.READY, Kind.EVIDENCE, Kind.GRANT, Kind.CONFIRM])
def test_a_withheld_word_of_the_join_is_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(module_run, "_PATIENCE", 0.5)
    plan = Plan(name="withheld", source="limits = { seconds = 0.5 }")
    error = stage.refusal(plan, on(kind, lambda m: []))
    assert isinstance(error, UndecidedError)
    assert "did not answer within 1 s" in error.message
    assert error.place == "source"


@pytest.fixture(scope="module")
def joined(calm_stage: Stage) -> World:
    """An application whose keys are all handed out."""
    return calm_stage.begin(Plan(name="joined"))


def keys_and_nonce(world: World, module: str, node: str) -> tuple[join.ModuleKeys, bytes]:
    evidence = world.wire.last(Kind.EVIDENCE, node=node, handle=world.handle(module))
    nonce = world.wire.last(Kind.CHALLENGE, node=node, handle=world.handle(module))
    return join.ModuleKeys(evidence.inner[1:33], evidence.inner[33:65]), nonce.inner[1:]


def test_a_replayed_grant_is_refused(joined: World) -> None:
    async def work() -> None:
        seen = joined.wire.last(Kind.GRANT, node="b")
        joined.wire.tell_enclave("b", joined.handle("actor"), seen.inner)
        await joined.next(kind="refused", module="actor", text="replayed")
        await joined.marker()

    joined.run(work())


def test_keys_of_its_own_are_refused(joined: World) -> None:
    """A grant in perfect form, signed by another deployer: its own, or one of somebody else's."""

    async def work() -> None:
        keys, nonce = keys_and_nonce(joined, "actor", "b")
        own = own_grant(nonce, keys, Ed25519PrivateKey.generate(), 2**32)
        joined.wire.tell_enclave("b", joined.handle("actor"), bytes([Kind.GRANT]) + own)
        await joined.next(kind="refused", module="actor", text="not signed by the deployer")
        await joined.marker()

    joined.run(work())


def test_the_grant_of_another_join_is_refused(joined: World) -> None:
    """Signed by the true deployer, for another nonce: of an earlier join, of a later one."""

    async def work() -> None:
        keys, nonce = keys_and_nonce(joined, "actor", "b")
        true = joined.supervisor._home.deployer_key()
        other = own_grant(os.urandom(32), keys, true, 5)
        joined.wire.tell_enclave("b", joined.handle("actor"), bytes([Kind.GRANT]) + other)
        await joined.next(kind="refused", module="actor", text="not signed by the deployer")
        theirs, _ = keys_and_nonce(joined, "twin", "a")
        other = own_grant(nonce, theirs, true, 6)
        joined.wire.tell_enclave("b", joined.handle("actor"), bytes([Kind.GRANT]) + other)
        await joined.next(kind="refused", module="actor", text="not signed by the deployer")
        await joined.marker()

    joined.run(work())


def test_asking_again_with_the_same_nonce_brings_no_old_key_back(joined: World) -> None:
    """The challenge can be replayed, and with it begins a new count of grants. Epochs stay."""

    async def work() -> None:
        handle = joined.handle("actor")
        challenge = joined.wire.last(Kind.CHALLENGE, node="b", handle=handle)
        grant = joined.wire.last(Kind.GRANT, node="b", handle=handle)
        event = joined.wire.last(Kind.EVENT, node="b", role="forward")
        joined.wire.tell_enclave("b", handle, challenge.inner)
        joined.wire.tell_enclave("b", handle, grant.inner)
        await joined.next(kind="refused", module="actor", text="epoch 1 after epoch 1")
        joined.wire.tell_enclave("b", handle, event.message)
        await joined.next(kind="refused", module="actor", text="replayed")
        await joined.marker()

    joined.run(joined.marker())
    joined.run(work())


def test_answers_of_a_join_that_nobody_asked_for_change_nothing(joined: World) -> None:
    async def work() -> None:
        for kind in (Kind.EVIDENCE, Kind.CONFIRM, Kind.READY):
            seen = joined.wire.last(kind, node="b")
            joined.wire.inject(seen, seen.message)
        await joined.marker()
        assert joined.module("actor")["verdict"] == "accepted"

    joined.run(work())


def test_the_promise_held_in_all_joins(joined: World) -> None:
    joined.run(joined.marker())
    joined.check_promise()
    assert joined.connection(1)["epoch"] == 1
