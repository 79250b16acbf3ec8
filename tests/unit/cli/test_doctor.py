"""`broch doctor`: what it says, and when it fails."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broch.cli import doctor, entry
from broch.cli.doctor import Check, Need
from broch.image import toolchain
from broch.image.toolchain import Toolchain


def checks(**ok: bool) -> Iterator[Check]:
    for need in Need:
        yield Check(name=need.value, need=need, ok=ok.get(need.value, True), found="x", means="y")


def test_each_thing_is_looked_at_once() -> None:
    found = list(doctor.examine())
    names = [check.name for check in found]
    assert len(set(names)) == len(names)
    assert {"Python", "kernel", "seccomp", "Landlock", "memfd", "eventfd"} <= set(names)
    assert {"BROCH_HOME", "loopback", "ordinary user", "/dev/sgx_enclave"} <= set(names)
    assert all(check.found and check.means for check in found)


@pytest.mark.parametrize(
    ("lacking", "code"), [("", 0), ("helpful", 0), ("hardware", 0), ("needed", 6)]
)
def test_only_what_is_needed_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacking: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: checks(**{lacking: False}))
    assert entry.run(["doctor"]) == code
    shown = capsys.readouterr()
    assert shown.out.count("missing") == bool(lacking)
    assert shown.err == (
        "error: doctor: this machine lacks what Broch needs: needed\n" if code else ""
    )
    assert entry.run(["doctor", "--json"]) == code
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is (code == 0)
    assert len(data["checks"]) == len(Need)
    assert ("error" in data) is (code == 6)


@pytest.mark.parametrize(("mode", "ok"), [(0o700, True), (0o755, False)])
def test_the_home_is_the_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, ok: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    monkeypatch.setenv("BROCH_HOME", str(home))
    assert next(check for check in doctor.examine() if check.name == "BROCH_HOME").ok is ok


def test_a_home_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "none" / "home"))
    assert next(check for check in doctor.examine() if check.name == "BROCH_HOME").ok
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler() -> Check:
        return next(check for check in doctor.examine() if check.name == "C compiler")

    for name in ("_zig", "_clang", "_gcc"):
        monkeypatch.setattr(toolchain, name, lambda target: None)
    lacking = compiler()
    assert not lacking.ok
    assert "broch[native]" in lacking.means
    made = Toolchain(name="some", target="x86_64", compiler=("cc",), linker=("ld",))
    monkeypatch.setattr(toolchain, "_clang", lambda target: made)
    assert compiler().found == "some for x86_64, some for msp430"
