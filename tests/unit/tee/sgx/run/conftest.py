"""Small enclaves, built once, and runners that are closed and that do not hang."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.cpu import native
from broch.errors import UsageError
from broch.image import toolchain
from broch.tee.sgx import sgxs, signing, sigstruct
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.run import engines
from broch.tee.sgx.run.loading import load
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.usercalls import Usercalls

from . import programs

SECONDS = 60.0
Start = Callable[..., Runner]


@pytest.fixture(scope="session")
def compiler() -> None:
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))


@pytest.fixture(params=["native", "unicorn"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "native" and (problem := native.missing()):
        pytest.skip(f"native: {problem}")
    if name == "unicorn" and importlib.util.find_spec("unicorn") is None:
        pytest.skip("unicorn is not installed")
    return name


@pytest.fixture(scope="session")
def scripted(compiler: None) -> bytes:
    return programs.scripted()


@pytest.fixture(scope="session")
def trying_elf(compiler: None) -> bytes:
    return programs.compiled(programs.TRYING)


@pytest.fixture(scope="session")
def trying(trying_elf: bytes) -> bytes:
    return programs.stream(trying_elf)


@pytest.fixture(scope="session")
def library(compiler: None) -> bytes:
    return programs.kit(programs.LIBRARY, library=True, threads=2)


def sign(stream: bytes, key: RSAPrivateKey) -> bytes:
    unsigned = signing.dummy(sgxs.measure(stream), 1, 0, xcr0=7)
    return sigstruct.sign(unsigned, key).to_bytes()


@pytest.fixture
def start(device: SgxDevice, key: RSAPrivateKey) -> Iterator[Start]:
    """Load a stream and make its runner; what hangs is ended."""
    with ExitStack() as stack:

        def make(
            stream: bytes,
            engine: str,
            usercalls: Usercalls | None = None,
            *,
            sgx2: bool = False,
            **options: Any,
        ) -> Runner:
            enclave = load(stream, sign(stream, key), device)
            stack.callback(enclave.close)
            host = usercalls if usercalls is not None else Usercalls()
            maker = engines.choose(engine, sgx2=sgx2)
            runner = Runner(enclave, device, host, maker, **options)
            stack.callback(runner.close)
            timer = threading.Timer(SECONDS, lambda: runner.post(_too_long))
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
            return runner

        yield make


def _too_long() -> None:
    raise AssertionError(f"the enclave ran for {SECONDS} s")
