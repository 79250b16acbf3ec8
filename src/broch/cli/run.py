"""``broch run``: load an enclave, run it, and end as it ends."""

import sys
from pathlib import Path
from typing import Any, Final

from broch.cli import output
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
    as_json: bool,
) -> int:
    """Run an enclave, or a module in C after building it; the exit code."""
    if path.suffix == ".c":
        from broch.cli import compiling

        with compiling.built_to_run(path, "sgx") as built:
            return run(
                built, arguments, signature=signature, engine=engine, sgx2=sgx2, as_json=as_json
            )
    # With --json, standard output is for the one object.
    usercalls = Usercalls(stdout=_STDERR) if as_json else Usercalls()
    with Program(
        path, signature=signature, engine=engine, sgx2=sgx2, usercalls=usercalls
    ) as program:
        output.note(
            f"emulated SGX, {program.engine} engine: keys are software, memory is open to the host"
        )
        sys.stdout.flush()
        ended: EnclaveError | None = None
        try:
            program.run(arguments)
        except EnclaveError as exc:
            ended = exc
        if as_json:
            output.print_json(_data(program, ended))
        return _say(ended)


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
        "ended": "exited" if ended is None else "failed",
        "error": None if ended is None else output.error_data(ended),
    }
