"""Nodes of a descriptor: devices, addresses, and what is believed of real hardware."""

import os
import re
from pathlib import Path
from typing import Final

import pytest

from broch.app.descriptor import load
from broch.app.descriptor_nodes import DeviceKind
from broch.errors import BrochError, UsageError

from .descriptors import (
    FULL,
    SMALL,
    TEES,
    Rule,
    change,
    check_rule,
    each_rule,
    read,
    refused,
    write_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path)


@pytest.mark.parametrize(
    ("host", "given"), [("127.8.9.1", "127.8.9.1"), ("::1", "::1"), ("0:0:0::1", "::1")]
)
def test_hosts_are_loopback_addresses_in_their_one_spelling(
    folder: Path, host: str, given: str
) -> None:
    text = change(FULL, 'host = "127.0.0.1"', f'host = "{host}"')
    assert read(folder, text).nodes["cloud"].host == given


def test_two_nodes_may_both_take_any_port(folder: Path) -> None:
    text = change(FULL, 'host = "::1"\nport = 7002', "")
    read(folder, change(text, "port = 7001", "port = 0"))


def test_two_hosts_may_use_one_port(folder: Path) -> None:
    read(folder, change(FULL, "port = 7002", "port = 7001"))


MALFORMED: Final[tuple[Rule, ...]] = (
    ("node: unknown key", 'tee = "sgx"', 'tee = "sgx"\nprot = 1', "prot",
     "unknown key 'prot' in [nodes.cloud]", "did you mean 'port'?"),
    ("node: slip in a required key", 'tee = "sgx"', 'teee = "sgx"', "teee",
     "unknown key 'teee' in [nodes.cloud]", "did you mean 'tee'?"),
    ("node: no tee", 'tee = "sgx"\n', "", "[nodes.cloud]",
     "missing key 'tee' in [nodes.cloud]", 'add tee = "..."'),
    ("node: no device", 'device = "emulated"\n', "", "[nodes.cloud]",
     "missing key 'device' in [nodes.cloud]", 'add device = "emulated" or "native"'),
    ("node: unknown device", '"native"', '"nativ"', '"nativ"',
     "device is 'nativ', expected 'emulated' or 'native'", "did you mean 'native'?"),
    ("node: type of device", '"native"', "true", "device = true",
     "device is true, expected text", None),
    ("node: not a table", '[nodes.field]\ntee = "trustzone"\ndevice = "native"\nhost = "::1"\n'
     "port = 7002", "[nodes]\nfield = 5", "field = 5", "field is 5, expected a table", None),
    ("node: name", "[nodes.field]", "[nodes.Field]", "[nodes.Field]", "'Field' is not a name",
     "a name begins with a-z and goes on with a-z, 0-9, - or _, at most 64 in all"),
    ("node: port too high", "port = 7001", "port = 65536", "65536",
     "port is 65536, expected an integer from 0 to 65535", None),
    ("node: port below 0", "port = 7001", "port = -1", "port = -1",
     "port is -1, expected an integer from 0 to 65535", None),
    ("node: type of port", "port = 7001", 'port = "7001"', '"7001"',
     "port is '7001', expected an integer from 0 to 65535", None),
    ("node: host elsewhere", 'host = "127.0.0.1"', 'host = "10.0.0.1"', "10.0.0.1",
     "host is '10.0.0.1', expected a loopback address",
     "agents talk over loopback: write 127.0.0.1 or ::1"),
    ("node: any host", 'host = "127.0.0.1"', 'host = "0.0.0.0"', "0.0.0.0",
     "host is '0.0.0.0', expected a loopback address",
     "agents talk over loopback: write 127.0.0.1 or ::1"),
    ("node: host by name", 'host = "127.0.0.1"', 'host = "localhost"', "localhost",
     "host is 'localhost', expected a loopback address",
     "agents talk over loopback: write 127.0.0.1 or ::1"),
    ("node: host with a scope", 'host = "127.0.0.1"', 'host = "::1%lo"', "::1%lo",
     "host is '::1%lo', expected a loopback address",
     "agents talk over loopback: write 127.0.0.1 or ::1"),
    ("node: mapped host", 'host = "127.0.0.1"', 'host = "::ffff:127.0.0.1"', "::ffff",
     "host is '::ffff:127.0.0.1', expected a loopback address",
     "agents talk over loopback: write 127.0.0.1 or ::1"),
    ("nodes: one address twice", 'host = "::1"\nport = 7002', "port = 7_001", "port = 7_001",
     "nodes cloud and field both listen on 127.0.0.1:7001", "port = 0 takes any free port"),
)  # fmt: skip


@each_rule(MALFORMED)
def test_each_rule(
    folder: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    check_rule(folder, old, new, where, message, hint)


@pytest.mark.parametrize(
    ("tee", "hint"),
    [
        ("sgxx", "did you mean 'sgx'? installed TEEs: keystone, sgx, trustzone"),
        ("pluton", "installed TEEs: keystone, sgx, trustzone"),
    ],
)
def test_an_unknown_tee_is_an_error_of_usage(folder: Path, tee: str, hint: str) -> None:
    error = refused(folder, change(FULL, 'tee = "sgx"', f'tee = "{tee}"'))
    assert type(error) is UsageError
    assert (error.place, error.message) == ("app.toml:6", f"unknown TEE '{tee}'")
    assert error.hint == hint


def test_the_installed_tees_are_the_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "app.toml").write_text(SMALL)
    monkeypatch.setattr("broch.tee.registry.names", lambda: ("pluton",))
    monkeypatch.setattr("broch.tee.registry.native_names", lambda: ("palladium",))
    with pytest.raises(UsageError) as caught:
        load(folder / "app.toml")
    assert caught.value.hint == "installed TEEs: palladium, pluton"


def native(text: str, *lines: str, tee: str = "snp") -> str:
    """FULL with a native node of a kind that only real hardware has."""
    return change(
        text,
        'tee = "trustzone"\ndevice = "native"',
        "\n".join([f'tee = "{tee}"', 'device = "native"', *lines]),
    )


def test_a_native_node_names_its_policy_and_endorsements(folder: Path) -> None:
    (folder / "snp.toml").write_text("")
    text = native(FULL, 'policy = "snp.toml"', 'endorsements = "/var/lib/amd"')
    (folder / "app.toml").write_text(text)
    node = load(folder / "app.toml", tees=TEES, natives=("snp",)).nodes["field"]
    assert (node.tee, node.device) == ("snp", DeviceKind.NATIVE)
    assert node.policy == Path(os.path.realpath(folder)) / "snp.toml"
    assert node.endorsements == Path("/var/lib/amd")


def test_what_only_real_hardware_has_is_not_emulated(folder: Path) -> None:
    (folder / "app.toml").write_text(change(SMALL, '"sgx"', '"snp"'))
    with pytest.raises(UsageError, match="no device of 'snp' is emulated") as caught:
        load(folder / "app.toml", tees=TEES, natives=("snp",))
    assert caught.value.hint == 'write device = "native", and run the node on such a machine'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('policy = "../snp.toml"', "is not a path inside the descriptor's folder"),
        ('policy = "gone.toml"', "there is no file 'gone.toml'"),
        ("policy = 3", "policy is 3, expected text"),
    ],
)
def test_a_policy_is_a_file_of_the_application(folder: Path, line: str, problem: str) -> None:
    (folder / "app.toml").write_text(native(FULL, line))
    with pytest.raises(BrochError, match=re.escape(problem)):
        load(folder / "app.toml", tees=TEES, natives=("snp",))


def test_emulated_nodes_have_no_policy_of_their_own(folder: Path) -> None:
    (folder / "snp.toml").write_text("")
    text = change(FULL, 'device = "emulated"', 'device = "emulated"\npolicy = "snp.toml"')
    (folder / "app.toml").write_text(text)
    with pytest.raises(BrochError, match="unknown key 'policy'"):
        load(folder / "app.toml", tees=TEES)
