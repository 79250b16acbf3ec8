"""Keys are slow to make: two for the whole session."""

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.tee.contract import Packed
from broch.tee.sgx import TEE
from broch.tee.sgx.device import SgxDevice, SgxIdentity

from .support import load, pack, settings


@pytest.fixture(scope="session")
def key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@pytest.fixture(scope="session")
def other_key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@pytest.fixture(scope="session")
def device() -> SgxDevice:
    return SgxDevice(settings())


@pytest.fixture(scope="session")
def packed(key: RSAPrivateKey) -> Packed:
    return pack(key)


@pytest.fixture(scope="session")
def identity(device: SgxDevice, packed: Packed) -> SgxIdentity:
    return load(device, packed)
