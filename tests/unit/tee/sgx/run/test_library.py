"""Library enclaves, called from Python: broch.sgx.Enclave."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import broch.sgx
from broch.app.home import Home
from broch.errors import UntrustedError, UsageError
from broch.sgx import Enclave, Reply
from broch.tee.sgx.run.ends import EnclaveError, EnclaveFaultError, EnclavePanickedError
from broch.tee.sgx.verify import verify


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def path(library: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("library") / "library.sgxs"
    file.write_bytes(library)
    return file


@pytest.fixture
def enclave(path: Path, home: Home, engine: str) -> Iterator[Enclave]:
    def ocall(data: bytes) -> tuple[int, bytes]:
        return -len(data), data.upper()

    with Enclave(path, engine=engine, home=home, ocalls={5: ocall}) as made:
        assert made.engine == engine
        yield made


def test_calls_and_ocalls(enclave: Enclave) -> None:
    assert enclave.call(1, b"data") == Reply(4, b"data")
    assert enclave.call(1) == Reply(0, b"")
    assert enclave.call(1, b"x" * 10_000) == Reply(10_000, b"x" * 10_000)
    assert enclave.call(2, b"shout") == Reply(-5, b"SHOUT")
    assert enclave.call(99) == Reply(-1, b"")


def test_eenter_has_five_numbers(enclave: Enclave) -> None:
    with pytest.raises(UsageError, match="6 numbers"):
        enclave.enter(1, 2, 3, 4, 5, 6)
    assert enclave.call(1, b"data") == Reply(4, b"data")


def test_calls_do_not_use_up_user_memory(enclave: Enclave) -> None:
    enclave.call(2, b"x" * 250)
    enclave.call(1, b"x" * 5000)
    before = enclave._library.memory._next
    for _ in range(20):
        enclave.call(2, b"x" * 250)
        enclave.call(1, b"x" * 5000)
    used = enclave._library.memory._next - before
    assert used == 0, "the same blocks, again and again"


def test_two_threads_are_in_it_at_once(enclave: Enclave) -> None:
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(enclave.call(6)))
    thread.start()
    while thread.is_alive():  # it returns when another call has come
        enclave.call(1)
    thread.join()
    assert found == [Reply(66, b"")]


def test_a_panic_is_raised_then_and_later(enclave: Enclave) -> None:
    with pytest.raises(EnclavePanickedError, match="three"):
        enclave.call(3)
    with pytest.raises(EnclavePanickedError, match="three"):
        enclave.call(1)


def test_an_exit_is_an_error_to_callers(enclave: Enclave) -> None:
    with pytest.raises(EnclaveError, match="has exited"):
        enclave.call(7)


def test_closing_ends_a_call_that_does_not_return(enclave: Enclave) -> None:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            enclave.call(4)
        except EnclaveError as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    enclave.call(1)
    enclave._library.close()
    thread.join(60)
    assert [str(error) for error in errors] == ["the enclave was closed"]
    with pytest.raises(EnclaveError, match="was closed"):
        enclave.call(1)


def test_what_an_ocall_raises_reaches_the_caller(path: Path, home: Home, engine: str) -> None:
    def ocall(_: bytes) -> None:
        raise LookupError("of the author's")

    with (
        Enclave(path, engine=engine, home=home, ocalls={5: ocall}) as enclave,
        pytest.raises(LookupError, match="of the author's"),
    ):
        enclave.call(2, b"x")


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_an_ocall_returns_32_bits(path: Path, home: Home, engine: str, value: int) -> None:
    with (
        Enclave(path, engine=engine, home=home, ocalls={5: lambda _: value}) as enclave,
        pytest.raises(UsageError, match="32 bits"),
    ):
        enclave.call(2)


def test_an_ocall_that_nobody_serves(path: Path, home: Home, engine: str) -> None:
    with (
        Enclave(path, engine=engine, home=home) as enclave,
        pytest.raises(EnclaveFaultError, match="invalid usercall 0x80000005"),
    ):
        enclave.call(2)


def test_a_report_becomes_a_quote_that_verifies(enclave: Enclave, home: Home) -> None:
    report = enclave.call(5, enclave.quote_target + bytes(range(64))).data
    claims = verify(enclave.quote(report), broch.sgx.endorsements(home), at=datetime.now(UTC))
    assert claims.measurement == enclave.mrenclave
    assert claims.signer == enclave.mrsigner
    assert claims.report_data == bytes(range(64))
    assert claims.emulated
    assert claims.debug
    for wrong in (bytes(432), report[:-1] + bytes([report[-1] ^ 1])):
        with pytest.raises(UntrustedError):
            enclave.quote(wrong)
    other = enclave.call(5, bytes(512) + bytes(64)).data
    with pytest.raises(UntrustedError):
        enclave.quote(other)


def test_raw_entries(enclave: Enclave) -> None:
    assert enclave.enter(99) == (2**64 - 1, 0)
    assert enclave.enter(1, 0, 0, 0) == (0, 0)


@pytest.mark.parametrize("choice", ["coresident", "file=nowhere.sig", "file=", "other"])
def test_signatures_that_are_none(path: Path, home: Home, choice: str) -> None:
    with pytest.raises(UsageError):
        Enclave(path, home=home, signature=choice)


def test_the_device_is_the_installations_own(path: Path, home: Home, tmp_path: Path) -> None:
    first, second = broch.sgx.open_device(home), broch.sgx.open_device(home)
    other = broch.sgx.open_device(Home(tmp_path))
    assert first.endorsements() == second.endorsements() != other.endorsements()
