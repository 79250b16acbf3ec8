"""The join, against an emulated device and a module that does what the protocol says, or not."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broch.app.deployer import Admission, Deployer, portions
from broch.app.descriptor import OPERATOR, Operator
from broch.app.wiring import Connection, ConnectionKind, End, Wiring
from broch.attest import Policy
from broch.crypto.channel import Direction, Opener, Sealer
from broch.enclave import handover, join
from broch.enclave.messages import SEALED, Kind
from broch.errors import (
    DecodeError,
    InternalError,
    PolicyError,
    UndecidedError,
    UntrustedError,
)
from broch.image import Image, Interface
from broch.tee import registry
from broch.tee.contract import DeviceSettings, Endorsements, Loaded, Measurement, PackSettings

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TEE = registry.find("keystone")
DEPLOYER = Ed25519PrivateKey.generate()
LAX = Policy(emulated=True, allow_debug=True)


class Memory:
    """A device's own memory."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        return self._values.get(name)

    def put(self, name: str, value: bytes) -> None:
        self._values[name] = value


class FakeModule:
    """The module's side of the join, on an emulated device, in this process."""

    def __init__(self, module: str = "sensor", text: bytes = b"pass") -> None:
        self.image = Image(
            app="demo",
            module=module,
            files={"m.py": text},
            main="m.py",
            interface=Interface(),
            runtime=bytes(32),
            deployer=DEPLOYER.public_key().public_bytes_raw(),
        )
        self.packed = TEE.pack(self.image, PackSettings(), None)
        self.device = TEE.device(
            DeviceSettings(
                name="d", secret=os.urandom(32), nv=Memory(), now=NOW - timedelta(days=1)
            )
        )
        self.loaded: Loaded = self.device.load(self.packed)
        self.exchange = X25519PrivateKey.generate()
        self.signing = Ed25519PrivateKey.generate()
        self.keys = join.ModuleKeys(
            self.exchange.public_key().public_bytes_raw(),
            self.signing.public_key().public_bytes_raw(),
        )
        self.nonce = b""

    @property
    def measurement(self) -> Measurement:
        return TEE.measure(self.packed)

    def evidence(self, challenge: bytes, *, named: str | None = None) -> bytes:
        self.nonce = challenge[1:]
        name = named or self.image.module
        data = join.report_data(self.nonce, self.keys, "demo", name, TEE.report_data_size)
        evidence = self.device.evidence(self.loaded.identity, data)
        return bytes([Kind.EVIDENCE]) + self.keys.exchange + self.keys.signing + evidence

    def open(self, grant: bytes) -> join.Terms:
        public = DEPLOYER.public_key().public_bytes_raw()
        return join.open_grant(grant[1:], self.nonce, self.keys, self.exchange, public)

    def confirm(self, terms: join.Terms) -> bytes:
        return bytes([Kind.CONFIRM]) + join.confirmation(terms, self.nonce, self.keys)


@pytest.fixture
def module() -> FakeModule:
    return FakeModule()


def admission(
    module: FakeModule,
    *,
    policy: Policy = LAX,
    expected: Measurement | None = None,
    endorsements: Endorsements | None = None,
) -> Admission:
    return Admission(
        app="demo",
        module=module.image.module,
        tee=TEE,
        expected=expected or module.measurement,
        endorsements=endorsements or module.device.endorsements(),
        policy=policy,
        deployer=DEPLOYER,
    )


def test_an_honest_module_is_let_in(module: FakeModule) -> None:
    deployer = admission(module)
    verdict = deployer.appraise(module.evidence(deployer.challenge()), at=NOW)
    assert verdict.claims.emulated
    connection = join.Connection(1, "output", "out", "operator", "aes-128-gcm", bytes(16), 1)
    terms = module.open(deployer.grant([connection]))
    assert terms.connections == [connection]
    deployer.confirm(module.confirm(terms))
    second = module.open(deployer.grant([]))
    assert second.serial == terms.serial + 1


def test_a_grant_cannot_be_made_before_the_evidence(module: FakeModule) -> None:
    with pytest.raises(InternalError, match="was not admitted"):
        admission(module).grant([])


def test_evidence_of_an_earlier_join_is_refused(module: FakeModule) -> None:
    old = module.evidence(admission(module).challenge())
    with pytest.raises(UntrustedError, match="not an answer to this challenge") as caught:
        admission(module).appraise(old, at=NOW)
    assert caught.value.place == "sensor"


def test_evidence_in_another_modules_name_is_refused(module: FakeModule) -> None:
    deployer = admission(module)
    with pytest.raises(UntrustedError, match="another module's"):
        deployer.appraise(module.evidence(deployer.challenge(), named="valve"), at=NOW)


def test_a_key_that_was_not_reported_is_refused(module: FakeModule) -> None:
    deployer = admission(module)
    message = bytearray(module.evidence(deployer.challenge()))
    message[1:33] = X25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(UntrustedError):
        deployer.appraise(bytes(message), at=NOW)


def test_altered_evidence_is_refused(module: FakeModule) -> None:
    deployer = admission(module)
    message = bytearray(module.evidence(deployer.challenge()))
    message[65 + 100] ^= 1
    with pytest.raises((UntrustedError, DecodeError)):
        deployer.appraise(bytes(message), at=NOW)


def test_evidence_of_another_device_is_refused(module: FakeModule) -> None:
    deployer = admission(module, endorsements=FakeModule().device.endorsements())
    with pytest.raises((UntrustedError, UndecidedError)):
        deployer.appraise(module.evidence(deployer.challenge()), at=NOW)


def test_other_code_is_refused(module: FakeModule) -> None:
    deployer = admission(module, expected=FakeModule(text=b"other").measurement)
    with pytest.raises(PolicyError, match="measurement"):
        deployer.appraise(module.evidence(deployer.challenge()), at=NOW)
    with pytest.raises(InternalError):
        deployer.grant([])


def test_an_emulated_device_needs_a_policy_that_says_so(module: FakeModule) -> None:
    deployer = admission(module, policy=Policy(allow_debug=True))
    with pytest.raises(PolicyError, match="emulated Keystone device"):
        deployer.appraise(module.evidence(deployer.challenge()), at=NOW)


@pytest.mark.parametrize("message", [b"", b"\x42", b"\x43" + bytes(200), b"\x42" + bytes(64)])
def test_what_is_not_evidence_is_malformed(module: FakeModule, message: bytes) -> None:
    with pytest.raises(DecodeError):
        admission(module).appraise(message, at=NOW)


def test_a_wrong_confirmation_is_refused(module: FakeModule) -> None:
    deployer = admission(module)
    deployer.appraise(module.evidence(deployer.challenge()), at=NOW)
    with pytest.raises(UntrustedError, match="nothing was to be confirmed"):
        deployer.confirm(bytes([Kind.CONFIRM]) + bytes(32))
    first = module.open(deployer.grant([]))
    deployer.grant([])
    with pytest.raises(UntrustedError, match="did not confirm"):
        deployer.confirm(module.confirm(first))


def test_a_grant_fits_one_module_and_one_join(module: FakeModule) -> None:
    deployer, other = admission(module), FakeModule()
    deployer.appraise(module.evidence(deployer.challenge()), at=NOW)
    grant = deployer.grant([])
    other.nonce = module.nonce
    with pytest.raises(UntrustedError):
        other.open(grant)
    module.nonce = os.urandom(32)
    with pytest.raises(UntrustedError):
        module.open(grant)


def test_state_goes_from_one_admitted_enclave_to_the_next(module: FakeModule) -> None:
    successor = FakeModule()
    old, new = admission(module), admission(successor)
    for deployer, side in ((old, module), (new, successor)):
        deployer.appraise(side.evidence(deployer.challenge()), at=NOW)
    public = DEPLOYER.public_key().public_bytes_raw()
    order = old.export_to(new)
    assert order[0] == Kind.EXPORT
    target = handover.open_export_order(order[1:], public, module.nonce, module.keys)
    assert target == successor.keys.exchange
    digest = join.module_digest("demo", "sensor")
    state = handover.seal_state(b"state", target, digest, module.signing)
    order = new.import_from(old, state)
    assert order[0] == Kind.IMPORT
    opened = handover.open_import_order(
        order[1:], public, successor.nonce, successor.keys, successor.exchange, digest
    )
    assert opened == b"state"


A, B = End(module="a", port="out", number=0), End(module="b", port="in", number=0)
ASK, ANSWER = End(module="a", port="ask", number=1), End(module="b", port="answer", number=1)


def wire(number: int, source: End | Operator, target: End | Operator) -> Connection:
    kind = ConnectionKind.REQUEST if source is ASK else ConnectionKind.EVENT
    return Connection(
        id=number, source=source, target=target, kind=kind, cipher="aes-128-gcm", argument=None
    )


WIRES = (wire(1, A, B), wire(2, ASK, ANSWER), wire(3, A, OPERATOR), wire(4, OPERATOR, B))


def test_keys_are_fresh_shared_and_granted_to_receivers_first() -> None:
    deployer = Deployer(Wiring(WIRES))
    rekeying = deployer.rekey([1, 2, 3, 4])
    assert {c.id: c.role for c in rekeying.receivers["b"]} == {1: "input", 2: "handler", 4: "input"}
    assert {c.id: c.role for c in rekeying.senders["a"]} == {1: "output", 2: "request", 3: "output"}
    assert rekeying.receivers.keys() == {"b"}
    assert rekeying.senders.keys() == {"a"}
    received = {c.id: c.key for c in rekeying.receivers["b"]}
    sent = {c.id: c.key for c in rekeying.senders["a"]}
    assert received[1] == sent[1]
    assert received[2] == sent[2]
    assert len({*received.values(), *sent.values()}) == 4
    assert [c.id for c in rekeying.operator] == [4]


def test_epochs_rise_with_every_rekeying() -> None:
    deployer = Deployer(Wiring(WIRES))
    assert deployer.rekey([1, 3]).epochs == {1: 1, 3: 1}
    assert deployer.rekey([1]).epochs == {1: 2}
    assert deployer.epochs == {1: 2, 2: 0, 3: 1, 4: 0}
    deployer.epochs[1] = 2**32 - 1
    with pytest.raises(InternalError, match="last epoch"):
        deployer.rekey([1])


def test_no_key_is_shown() -> None:
    rekeying = Deployer(Wiring(WIRES)).rekey([1, 2, 3, 4])
    shown = repr(rekeying) + repr(rekeying.receivers) + repr(rekeying.senders)
    for granted in [*rekeying.receivers["b"], *rekeying.senders["a"]]:
        assert repr(granted.key) not in shown
        assert granted.key.hex() not in shown


def event(granted: join.Connection, data: bytes, counter: int = 1) -> bytes:
    sealer = Sealer(
        granted.cipher,
        granted.key,
        connection=granted.id,
        direction=Direction.FORWARD,
        epoch=granted.epoch,
    )
    sealer.counter = counter - 1
    number, sealed = sealer.seal(data)
    return SEALED.pack(Kind.EVENT, granted.id, granted.epoch, number) + sealed


def test_the_operator_opens_what_was_sealed_to_it() -> None:
    deployer = Deployer(Wiring(WIRES))
    (granted,) = deployer.rekey([3]).senders["a"]
    assert deployer.ends.open(event(granted, b"x")) == (3, b"x", 0)
    assert deployer.ends.open(event(granted, b"y", 5)) == (3, b"y", 3)
    tally = deployer.ends.tallies[3]
    assert (tally.events, tally.gaps, tally.refused) == (2, 3, 0)


def test_the_operator_refuses_replays_forgeries_and_old_epochs() -> None:
    deployer = Deployer(Wiring(WIRES))
    (granted,) = deployer.rekey([3]).senders["a"]
    message = event(granted, b"x")
    deployer.ends.open(message)
    with pytest.raises(UntrustedError, match="replayed"):
        deployer.ends.open(message)
    forged = event(granted, b"x", 2)
    with pytest.raises(UntrustedError, match="not authentic"):
        deployer.ends.open(forged[:-1] + bytes([forged[-1] ^ 1]))
    deployer.rekey([3])
    with pytest.raises(UntrustedError, match="under epoch 1"):
        deployer.ends.open(event(granted, b"x", 3))
    with pytest.raises(UntrustedError, match="does not lead to the operator"):
        deployer.ends.open(SEALED.pack(Kind.EVENT, 1, 1, 1) + bytes(16))
    assert deployer.ends.tallies[3].refused == 3


def test_the_operator_seals_for_its_receiver_alone() -> None:
    deployer = Deployer(Wiring(WIRES))
    rekeying = deployer.rekey([4])
    deployer.ends.take(rekeying.operator[0])
    message = deployer.ends.seal(WIRES[3], b"go")
    (granted,) = rekeying.receivers["b"]
    opener = Opener(granted.cipher, granted.key, connection=4, direction=Direction.FORWARD, epoch=1)
    assert opener.open(1, message[SEALED.size :]) == b"go"


def test_long_grants_are_cut() -> None:
    connection = join.Connection(1, "input", "p", "q", "aes-128-gcm", bytes(16), 1)
    parts = list(portions([connection] * 1201))
    assert [len(part) for part in parts] == [500, 500, 201]


def test_measurements_are_compared_whole(module: FakeModule) -> None:
    right = module.measurement
    wrong = dataclasses.replace(right, value=right.value[:-1] + bytes([right.value[-1] ^ 1]))
    deployer = admission(module, expected=wrong)
    with pytest.raises(PolicyError):
        deployer.appraise(module.evidence(deployer.challenge()), at=NOW)
