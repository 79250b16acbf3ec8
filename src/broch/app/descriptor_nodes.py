"""Nodes of a descriptor: machines, the devices that they have, and what is believed of real ones.

[nodes.NAME]
tee = "snp"                     a kind of device
device = "native"               or "emulated"
host = "127.0.0.1"              where its agent listens; port = 0: any free one
policy = "snp.toml"             native: what is accepted of it (broch.attest.policy_file)
endorsements = "endorsements"   native: folder or store of them, if any are needed

[nodes.NAME.peripherals]        names for the operator's panel (broch device)
button = "1.0"                  what the device calls it: of Sancus a pin, a port, or "uart"
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from broch.app.descriptor_paths import check_file, inside
from broch.errors import UsageError
from broch.image import NAME_RULE, is_name
from broch.wire.toml_places import Problems, Table, describe, nearest


class DeviceKind(StrEnum):
    """Whether a node's hardware is emulated or the real one under it."""

    EMULATED = "emulated"
    NATIVE = "native"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine with one device, and where its agent listens."""

    name: str
    tee: str
    device: DeviceKind
    host: str = "127.0.0.1"  # a loopback address
    port: int = 0  # 0: any free one
    policy: Path | None = None  # absolute
    endorsements: Path | None = None  # absolute
    peripherals: Mapping[str, str] = field(default_factory=dict)  # name -> the device's own


def read_node(
    name: str, table: Table, tees: Collection[str], natives: Collection[str], folder: Path
) -> Node:
    """The table ``[nodes.NAME]``; ``tees`` can be emulated, ``natives`` be under us."""
    device = table.choice("device", DeviceKind)
    is_native = device is DeviceKind.NATIVE
    node = Node(
        name=name,
        tee=table.text("tee"),
        device=device,
        host=_host(table),
        port=table.integer("port", 0, 0, 65535),
        policy=_policy(table, folder) if is_native else None,
        endorsements=_endorsements(table, folder) if is_native else None,
        peripherals=_peripherals(table),
    )
    if node.tee and node.tee not in tees and not (is_native and node.tee in natives):
        _unknown_tee(table, node.tee, tees, natives)
    table.close()
    return node


def _unknown_tee(table: Table, tee: str, tees: Collection[str], natives: Collection[str]) -> None:
    if tee in natives:
        hint = 'write device = "native", and run the node on such a machine'
        table.wrong("device", f"no device of {describe(tee)} is emulated", hint, UsageError)
        return
    installed = f"installed TEEs: {', '.join(sorted({*tees, *natives})) or 'none'}"
    slip = nearest(tee, sorted({*tees, *natives}))
    hint = f"did you mean {slip!r}? {installed}" if slip else installed
    table.wrong("tee", f"unknown TEE {describe(tee)}", hint, UsageError)


def _peripherals(table: Table) -> dict[str, str]:
    inner = table.table("peripherals")
    found = {name: inner.text(name) for name in inner.names()}
    for name in found:
        check_name(inner, name, name)
    inner.close()
    return found


def check_name(table: Table, key: str, name: str) -> None:
    """Note ``name``, which stands at ``key``, unless it is a name."""
    if not is_name(name):
        table.wrong(key, f"{describe(name)} is not a name", NAME_RULE)


def _policy(table: Table, folder: Path) -> Path | None:
    text = table.text("policy", "")
    relative = inside(table, ("policy",), text, folder) if text else None
    if relative is None:
        return None
    check_file(table, ("policy",), text, folder / relative)
    return folder / relative


def _endorsements(table: Table, folder: Path) -> Path | None:
    """Public, verified before it is used, and perhaps shared: it may be anywhere."""
    text = table.text("endorsements", "")
    return folder / text if text else None


def _host(table: Table) -> str:
    text = table.text("host", "127.0.0.1")
    if text == "127.0.0.1":
        return text
    from ipaddress import ip_address  # few descriptors need it

    try:
        host = str(ip_address(text))
    except ValueError:
        host = ""
    # By its one spelling: mapped and scoped forms of ::1 are "loopback" in some versions only.
    if not host.startswith("127.") and host != "::1":
        hint = "agents talk over loopback: write 127.0.0.1 or ::1"
        table.wrong("host", f"host is {describe(text)}, expected a loopback address", hint)
    return host


def check_addresses(nodes: Mapping[str, Node], problems: Problems) -> None:
    """Note nodes that listen where another one does."""
    taken: dict[tuple[str, int], Node] = {}
    for node in nodes.values():
        first = taken.setdefault((node.host, node.port), node)
        if first is not node and node.port and node.host:  # no host: noted already
            problem = f"nodes {first.name} and {node.name} both listen on {node.host}:{node.port}"
            problems.add(("nodes", node.name, "port"), problem, hint="port = 0 takes any free port")
