"""``broch sgx sign`` and ``broch sgx sigstruct``: read, call the library, write, print."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from broch.cli import binary, output
from broch.cli.sgx_tools import at, default_output, named_number
from broch.errors import UsageError
from broch.sgx import dummy_key
from broch.tee.sgx import measuring, sgxs, signing, sigstruct_view
from broch.tee.sgx import sigstruct as sigstruct_
from broch.tee.sgx.sigstruct import Sigstruct

FORMATS: Final = ("text", "json", "toml")
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Who signs: exactly one way is to be given."""

    key: Path | None
    dummy: bool
    tbs: Path | None
    signature: Path | None
    public_key: Path | None

    def check(self) -> None:
        """Refuse none and several; raises :class:`UsageError`."""
        ways = [self.key is not None, self.dummy, self.tbs is not None, self.signature is not None]
        if sum(ways) != 1:
            raise UsageError(
                "give one of --key PEM, --dummy, --tbs FILE, --signature FILE",
                place="broch sgx sign",
                hint=signing.KEY_HINT,
            )
        if (self.signature is None) != (self.public_key is None):
            raise UsageError("--signature and --public-key belong together", place="broch sgx sign")


def sign(
    source: str,
    target: Path | None,
    *,
    keys: Keys,
    numbers: Mapping[str, str | None],
    masked: Mapping[str, str],
    switches: Mapping[str, bool],
    in_hash: bool,
    date: str | None,
    verify_existing: Path | None,
    as_json: bool,
) -> int:
    """Sign, or do one of the two steps; the exit code."""
    keys.check()
    options = _options(numbers, masked, switches, date)
    enclavehash, ssaframesize = _enclave(source, in_hash)
    unsigned, warnings = signing.unsigned(enclavehash, options)
    if keys.dummy:
        xcr0 = options.xfrm.value
        unsigned = signing.dummy(enclavehash, ssaframesize, options.date, xcr0=xcr0)
        warnings = ["a dummy signature is for debugging: nobody should trust what it signs"]
    for warning in warnings:
        output.note(f"warning: {warning}")
    if keys.tbs is not None:
        if target is not None:
            raise UsageError(
                "--tbs writes no SIGSTRUCT",
                place=str(target),
                hint="leave OUTPUT out: it is for the second step, with --signature",
            )
        return _write_tbs(unsigned, keys.tbs, as_json=as_json)
    signed = _sign(unsigned, keys)
    out = target if target is not None else _default_target(source, in_hash)
    if verify_existing is not None:
        public = signing.read_public_key(_small(verify_existing), str(verify_existing))
        with at(out):
            signing.verify_existing(_small(out), enclavehash, public, str(out))
    if out == binary.STREAM and as_json:
        raise UsageError("--json and the SIGSTRUCT cannot both go to stdout", hint="name a file")
    binary.write(out, [signed.to_bytes()])
    if out != binary.STREAM:
        _say(
            {
                "output": str(out),
                "mrenclave": enclavehash.hex(),
                "mrsigner": signed.mrsigner().hex(),
                "isvprodid": signed.isvprodid,
                "isvsvn": signed.isvsvn,
                "debug": signed.debug,
            },
            as_json=as_json,
        )
    return 0


def _options(
    numbers: Mapping[str, str | None],
    masked: Mapping[str, str],
    switches: Mapping[str, bool],
    date: str | None,
) -> signing.Options:
    values: dict[str, Any] = {
        name: named_number(f"--{name}", text) for name, text in numbers.items() if text is not None
    }
    for name, text in masked.items():
        try:
            values[name] = signing.Masked.parse(text)
        except UsageError as exc:
            raise UsageError(exc.message, place=f"--{name}") from None
    today = f"{datetime.now(UTC):%Y%m%d}"
    day = signing.parse_date(date if date is not None else today)
    return signing.Options(date=day, **{**values, **switches})


def _enclave(source: str, in_hash: bool) -> tuple[bytes, int]:
    """(MRENCLAVE, SSAFRAMESIZE) of a stream, or a given MRENCLAVE."""
    if in_hash:
        if not _HASH.fullmatch(source):
            raise UsageError(
                "with --in-hash the input is a MRENCLAVE: 64 hexadecimal digits",
                place=f"{source:.80}",
            )
        return bytes.fromhex(source), 1
    path = Path(source)
    with at(path):
        if path == binary.STREAM:
            stream = binary.read_all(path)
            return sgxs.measure(stream), sgxs.read_create(stream).ssaframesize
        try:
            with path.open("rb") as file:
                mrenclave = measuring.measure_file(file)
                file.seek(0)
                return mrenclave, sgxs.read_create(file.read(sgxs.RECORD)).ssaframesize
        except OSError as exc:
            raise binary.unreadable(path, exc) from None


def _sign(unsigned: Sigstruct, keys: Keys) -> Sigstruct:
    if keys.signature is not None and keys.public_key is not None:
        public: RSAPublicKey = signing.read_public_key(
            _small(keys.public_key), str(keys.public_key)
        )
        with at(keys.signature):
            return signing.join(unsigned, _small(keys.signature), public)
    if keys.key is not None:
        return sigstruct_.sign(unsigned, signing.read_private_key(_small(keys.key), str(keys.key)))
    return sigstruct_.sign(unsigned, dummy_key())


def _small(path: Path) -> bytes:
    """A key or a signature."""
    return binary.read_all(path, binary.MAX_SMALL)


def _default_target(source: str, in_hash: bool) -> Path:
    if in_hash:
        raise UsageError("with --in-hash, OUTPUT must be given", place="broch sgx sign")
    return default_output(Path(source), ".sig")


def _write_tbs(unsigned: Sigstruct, out: Path, *, as_json: bool) -> int:
    if out == binary.STREAM and as_json:
        raise UsageError("--json and the bytes cannot both go to stdout", hint="name a file")
    binary.write(out, [unsigned.signed_bytes()])
    if out != binary.STREAM:
        day = f"{unsigned.date:08x}"
        _say(
            {"tbs": str(out), "mrenclave": unsigned.enclavehash.hex(), "date": day},
            as_json=as_json,
        )
        if not as_json:
            output.note(
                "hint: sign it with: openssl dgst -sha256 -sign key.pem -out FILE.rsa "
                f"{output.clean(str(out))}; then the same command with --date {day} "
                "--signature FILE.rsa --public-key PUB.pem instead of --tbs"
            )
    return 0


def _say(data: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        output.print_json(data)
        return
    width = max(map(len, data))
    for name, value in data.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        output.say(f"{name:<{width}}  {output.clean(text)}")


def view(file: Path, format_: str) -> int:
    """Show a SIGSTRUCT; the exit code, 4 if a check does not hold."""
    if format_ not in FORMATS:
        raise UsageError(f"no such format: {format_!r}", hint=f"one of {', '.join(FORMATS)}")
    with at(file):
        shown = sigstruct_view.view(_small(file))
    if format_ == "json":
        output.print_json(sigstruct_view.as_dict(shown))
    else:
        show = sigstruct_view.as_toml if format_ == "toml" else sigstruct_view.as_text
        output.say(show(shown))
    if shown.is_valid:
        return 0
    wrong = ", ".join(name for name, holds in shown.checks.items() if not holds)
    output.note(f"error: {output.clean(str(file))}: does not hold: {wrong}")
    return 4
