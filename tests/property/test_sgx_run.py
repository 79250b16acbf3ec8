"""Code that nobody wrote: whatever an enclave does, its run ends in one of our errors, or goes on
until it is ended.
"""

import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.tee.sgx.support import settings as device_settings

from broch.cpu import native
from broch.tee.sgx import TEE, layout, sgxs, signing, sigstruct
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.run import engines
from broch.tee.sgx.run.ends import EnclaveError
from broch.tee.sgx.run.loading import load
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.usercalls import Usercalls
from broch.tee.sgx.sgxs import PAGE, Create, Page, Sgxs

LONGEST = 0.05  # seconds that a program may run
PIECES = [
    bytes.fromhex(text)
    for text in (
        *("0f01d7", "4831c0", "b804000000", "bb00001000", "bf01000000", "4831ff", "0f05", "cd80"),
        *("0fa2", "0f31", "cc", "f4", "90", "ffe0", "50", "58", "4889e3", "48ffc7", "6548890425"),
        *("ebfe", "0f0b", "bf0a000000", "be01000000", "48b90000000000700000", "488b01", "eb05"),
    )
]


class _OverError(Exception):
    pass


def _over() -> None:
    raise _OverError


@pytest.fixture(scope="module")
def device() -> SgxDevice:
    return SgxDevice(device_settings())


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@pytest.fixture(autouse=True)
def traced() -> None:
    if problem := native.missing():
        pytest.skip(problem)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8), max_size=40))
def test_any_code_ends_in_our_errors(
    device: SgxDevice, key: RSAPrivateKey, pieces: list[bytes]
) -> None:
    code = b"".join(pieces)[: PAGE - 2].ljust(PAGE, b"\xf4")
    rwx, rw = sgxs.PT_REG | 7, sgxs.PT_REG | 3
    stream = Sgxs(
        create=Create(ssaframesize=1, size=8 * PAGE),
        pages=(
            Page(0, rwx, sgxs.ALL_MEASURED, code),
            Page(PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, layout.tcs(PAGE)),
            Page(2 * PAGE, rw, sgxs.NOTHING, sgxs.ZEROS),
        ),
    ).to_bytes()
    unsigned = signing.dummy(sgxs.measure(stream), 1, 0)
    enclave = load(stream, sigstruct.sign(unsigned, key).to_bytes(), device)
    runner = Runner(enclave, device, Usercalls(), engines.choose("native"))
    timer = threading.Timer(LONGEST, lambda: runner.post(_over))
    timer.start()
    said = "exited"
    try:
        runner.run_program()
    except EnclaveError as exc:
        said = str(exc)
    except _OverError:
        pass
    finally:
        timer.cancel()
        timer.join()
        runner.close()
        enclave.close()
    assert said
