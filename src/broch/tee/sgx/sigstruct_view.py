"""A SIGSTRUCT for people and programs: every field, and whether signature, q1 and q2 hold.

Names of fields are those of ``gramine-sgx-sigstruct-view`` where it has one.
"""

from dataclasses import dataclass
from typing import Any, Final

from broch.errors import UntrustedError
from broch.tee.sgx import sigstruct
from broch.tee.sgx.sigstruct import Sigstruct

_WIDTHS: Final = {  # hexadecimal digits
    **dict.fromkeys(("vendor", "swdefined", "misc_select", "misc_mask"), 8),
    **dict.fromkeys(("attribute_flags", "attribute_flags_mask"), 16),
    **dict.fromkeys(("attribute_xfrms", "attribute_xfrms_mask"), 16),
    **dict.fromkeys(("cet_attributes", "cet_attributes_mask"), 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a SIGSTRUCT says, and what is true of it."""

    fields: dict[str, str | int | bool]
    checks: dict[str, bool]  # signature, q1, q2

    @property
    def is_valid(self) -> bool:
        """Whether every check holds."""
        return all(self.checks.values())


def view(data: bytes) -> View:
    """Decode and check.

    Raises:
        DecodeError: not a SIGSTRUCT.
    """
    signed = Sigstruct.from_bytes(data)
    return View(fields=_fields(signed), checks=_checks(signed))


def _fields(signed: Sigstruct) -> dict[str, str | int | bool]:
    numbers = {
        "attribute_flags": signed.flags,
        "attribute_flags_mask": signed.flags_mask,
        "attribute_xfrms": signed.xfrm,
        "attribute_xfrms_mask": signed.xfrm_mask,
        "misc_select": signed.miscselect,
        "misc_mask": signed.miscmask,
        "cet_attributes": signed.cet_attributes,
        "cet_attributes_mask": signed.cet_attributes_mask,
        "vendor": signed.vendor,
        "swdefined": signed.swdefined,
    }
    day = f"{signed.date:08x}"
    return {
        "mr_signer": signed.mrsigner().hex(),
        "mr_enclave": signed.enclavehash.hex(),
        "isv_prod_id": signed.isvprodid,
        "isv_svn": signed.isvsvn,
        "debug_enclave": signed.debug,
        "date": f"{day[:4]}-{day[4:6]}-{day[6:]}",
        **{name: f"0x{value:0{_WIDTHS[name]}x}" for name, value in numbers.items()},
        "isv_family_id": signed.isvfamilyid.hex(),
        "isv_ext_prod_id": signed.isvextprodid.hex(),
    }


def _checks(signed: Sigstruct) -> dict[str, bool]:
    s, n = signed.signature, signed.modulus
    q1, q2 = sigstruct.quotients(s, n) if n else (-1, -1)
    return {
        "signature": _is_signed(signed, q1, q2),
        "q1": signed.q1 == q1,
        "q2": signed.q2 == q2,
    }


def _is_signed(signed: Sigstruct, q1: int, q2: int) -> bool:
    """Whether the signature itself holds, whatever q1 and q2 are."""
    if signed.signature >= signed.modulus:
        return False
    values: dict[str, Any] = {name: getattr(signed, name) for name in signed.__slots__}
    try:
        sigstruct.verify(Sigstruct(**{**values, "q1": q1, "q2": q2}))
    except UntrustedError:
        return False
    return True


def as_dict(shown: View) -> dict[str, object]:
    """One object for JSON."""
    return {**shown.fields, "valid": shown.is_valid, "checks": dict(shown.checks)}


def as_text(shown: View) -> str:
    """Aligned lines."""
    lines = {name: _plain(value) for name, value in shown.fields.items()}
    lines |= {name: "holds" if holds else "WRONG" for name, holds in shown.checks.items()}
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def as_toml(shown: View) -> str:
    """A TOML document; every text in it is of letters, digits, ``-`` and ``x``."""
    lines = [f"{name} = {_toml(value)}" for name, value in shown.fields.items()]
    lines += [f"valid = {_toml(shown.is_valid)}", "", "[checks]"]
    return "\n".join(lines + [f"{name} = {_toml(holds)}" for name, holds in shown.checks.items()])


def _plain(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml(value: str | int | bool) -> str:
    return f'"{value}"' if isinstance(value, str) else _plain(value)
