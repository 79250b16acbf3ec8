"""``broch run``: load an enclave, run it, and end as it ends."""

import threading
from pathlib import Path
from typing import Any, Final

from broch.app.reports import Stage
from broch.cli import binary, output
from broch.cli.progress import QUIET_SECONDS, Progress
from broch.errors import UndecidedError, UsageError
from broch.sgx import Program
from broch.tee.sgx.run.ends import EnclaveError
from broch.tee.sgx.run.usercalls import Usercalls

_STDERR: Final = 2


def run(
    path: Path,
    arguments: list[str],
    *,
    signature: str | None,
    engine: str | None,
    sgx2: bool,
    quote: Path | None,
    as_json: bool,
) -> int:
    """Run an enclave, or a module in C after building it; the exit code."""
    if quote == binary.STREAM:
        raise UsageError("standard output is the enclave's", place="--quote", hint="name a file")
    if path.suffix == ".c":
        from broch.cli import compiling

        with compiling.built_to_run(path, "sgx") as built:
            return run(
                built,
                arguments,
                signature=signature,
                engine=engine,
                sgx2=sgx2,
                quote=quote,
                as_json=as_json,
            )
    # With --json, standard output is for the one object.
    usercalls = Usercalls(stdout=_STDERR) if as_json else Usercalls()
    with _load(path, signature, engine, sgx2, usercalls) as program:
        output.note(
            f"emulated SGX, {program.engine} engine: keys are software, memory is open to the host"
        )
        output.flush()
        ended: EnclaveError | None = None
        try:
            program.run(arguments)
        except EnclaveError as exc:
            ended = exc
        if quote is not None and ended is None:
            _write_quote(program, quote)
        if as_json:
            output.print_json(_data(program, ended))
        return _say(ended)


def _load(
    path: Path, signature: str | None, engine: str | None, sgx2: bool, usercalls: Usercalls
) -> Program:
    """Load an enclave, and say so if that takes a while."""
    progress = Progress()
    progress(Stage(name="load", text=str(path)))
    timer = threading.Timer(QUIET_SECONDS, progress.overdue)
    timer.daemon = True
    timer.start()
    try:
        return Program(path, signature=signature, engine=engine, sgx2=sgx2, usercalls=usercalls)
    finally:
        timer.cancel()
        progress.close()


def _write_quote(program: Program, path: Path) -> None:
    """The quote, and beside it what a verifier needs to believe it."""
    if program.quote is None:
        raise UndecidedError(
            "the enclave asked for no quote",
            place="--quote",
            hint="it does by connecting to quote.broch: docs/sgx-run.md says how",
        )
    binary.write(path, [program.quote])
    folder = path.with_name(f"{path.name}.endorsements")
    endorsements = program.device.endorsements()
    try:
        (folder / "anchors").mkdir(parents=True, exist_ok=True)
        for number, anchor in enumerate(endorsements.anchors):
            (folder / "anchors" / f"emulated-{number}.der").write_bytes(anchor)
        for name, data in endorsements.items.items():
            (folder / name).write_bytes(data)
    except OSError as exc:
        raise UsageError(f"cannot be written: {exc.strerror}", place=str(folder)) from None
    output.note(f"quote (emulated): {output.clean(str(path))}, endorsements in {folder.name}")


def _say(ended: EnclaveError | None) -> int:
    """As the upstream runner says it, and what to do."""
    if ended is None:
        return 0
    output.note(f"Error while executing SGX enclave.\n{output.clean(ended.message)}")
    if ended.hint:
        output.note(f"hint: {output.clean(ended.hint)}")
    return ended.exit_code


def _data(program: Program, ended: EnclaveError | None) -> dict[str, Any]:
    secs = program.enclave.secs
    return {
        "emulated": True,
        "engine": program.engine,
        "mrenclave": secs.mrenclave.hex(),
        "mrsigner": secs.mrsigner.hex(),
        "isvprodid": secs.isvprodid,
        "isvsvn": secs.isvsvn,
        "debug": secs.debug,
        "usercalls": program.usercalls.count,
        "quote": None if program.quote is None else program.quote.hex(),
        "ended": "exited" if ended is None else "failed",
        "error": None if ended is None else output.error_data(ended),
    }
