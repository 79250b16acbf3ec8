"""The entry point's object, as the contract wants it."""

import subprocess
import sys
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, UsageError
from broch.tee.contract import Packed, PackSettings, SealBinding, Tee
from broch.tee.sgx import TEE

from .support import make_image, pack


def test_it_satisfies_the_contract() -> None:
    tee: Tee = TEE
    assert (tee.name, tee.title, tee.report_data_size) == ("sgx", "Intel SGX", 64)
    assert tee.seal_bindings == (SealBinding.CODE, SealBinding.SIGNER)
    assert tee.needs_signing_key


def test_a_new_key_is_rsa_3072_with_exponent_3(key: RSAPrivateKey) -> None:
    assert key.key_size == 3072
    assert key.public_key().public_numbers().e == 3


def test_packing_is_reproducible(key: RSAPrivateKey, packed: Packed) -> None:
    assert pack(key) == packed


@pytest.mark.parametrize(
    "settings",
    [
        PackSettings(version=4, product_id=7),
        PackSettings(version=3, product_id=8),
        PackSettings(version=3, product_id=7, debug=True),
    ],
)
def test_settings_are_signed_and_not_measured(
    key: RSAPrivateKey, packed: Packed, settings: PackSettings
) -> None:
    other = TEE.pack(make_image(), settings, key)
    assert other.data == packed.data
    assert other.signature != packed.signature
    assert TEE.measure(other) == TEE.measure(packed)


def test_the_measurement_names_code_and_signer(
    key: RSAPrivateKey, other_key: RSAPrivateKey, packed: Packed
) -> None:
    mine, theirs = TEE.measure(packed), TEE.measure(pack(other_key))
    assert mine.value == theirs.value
    assert mine.signer != theirs.signer
    changed = TEE.measure(pack(key, module="other"))
    assert (changed.value != mine.value, changed.signer == mine.signer) == (True, True)
    assert TEE.measure(replace(packed, signature=None)).signer is None


def test_no_key_no_package() -> None:
    with pytest.raises(UsageError, match="signing key"):
        TEE.pack(make_image(), PackSettings(), None)


@pytest.mark.parametrize("settings", [PackSettings(version=2**16), PackSettings(product_id=2**16)])
def test_numbers_are_of_16_bits(key: RSAPrivateKey, settings: PackSettings) -> None:
    with pytest.raises(UsageError, match="16 bits"):
        TEE.pack(make_image(), settings, key)


def test_measuring_nonsense(packed: Packed) -> None:
    with pytest.raises(DecodeError):
        TEE.measure(replace(packed, data=b"nonsense"))
    with pytest.raises(DecodeError):
        TEE.measure(replace(packed, signature=b"nonsense"))


def test_importing_the_folder_imports_nothing_heavy() -> None:
    program = (
        "import sys; before = set(sys.modules); import broch.tee.contract;"
        "base = set(sys.modules); import broch.tee.sgx;"
        "print(sorted(name for name in set(sys.modules) - base))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['broch.tee.sgx', 'broch.tee.sgx.kind']"


def test_a_device_that_has_its_certificates_needs_no_x509() -> None:
    program = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from broch.tee.contract import DeviceSettings\n"
        "from broch.tee.sgx import TEE\n"
        "class Memory(dict):\n"
        "    def put(self, name, value): self[name] = value\n"
        "memory = Memory()\n"
        "make = lambda: TEE.device(DeviceSettings(name='x', secret=bytes(32), nv=memory,"
        " now=datetime(2026, 1, 1, tzinfo=UTC)))\n"
        "make()\n"
        "for name in [name for name in sys.modules if 'x509' in name]: del sys.modules[name]\n"
        "make()\n"
        "print([name for name in sys.modules if 'cryptography.x509' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
