"""The example of the button and the LED, as a user runs it: three kinds of TEE, and a page."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from broch.errors import UsageError
from broch.image.toolchain import find

from .conftest import Broch

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "button-led"
TRIES: Final = 100  # of a question that takes some tenths of a second


@pytest.fixture
def running(broch: Broch) -> Iterator[Broch]:
    try:
        find("msp430")
    except UsageError as exc:
        pytest.skip(f"{exc.message}: {exc.hint}")
    done = broch("up", str(EXAMPLE / "app.toml"), "--detach", "--for", "110", "--json")
    assert done.code == 0, done.err
    assert [module["verdict"] for module in done.json["status"]["modules"]] == ["accepted"] * 4
    yield broch
    assert broch("down", "button-led").code == 0


def led(broch: Broch) -> Any:
    return broch("call", "led.state", "--app", "button-led", "--json").json["result"]


def wait_for(broch: Broch, toggled: int) -> Any:
    """The LED's state once so many toggles came."""
    for _ in range(TRIES):
        state = led(broch)
        if state["toggled"] >= toggled:
            return state
    raise AssertionError(f"{toggled} toggles never came: {state}")


def test_a_press_lights_the_led_and_nothing_else_does(running: Broch) -> None:
    """One run for all of it: starting takes some seconds."""
    broch = running
    for entry in ("led.toggle", "button.pressed", "led.edge"):
        assert broch("call", entry, "--app", "button-led").code == 2
    assert broch("emit", "led.toggle", '{"number": 1}', "--app", "button-led").code == 5
    assert broch("device", "press", "desk.2.0", "--app", "button-led").code == 5
    assert broch("device", "press", "wall.led", "--app", "button-led").code == 0  # to no effect
    assert led(broch) == {"lit": False, "toggled": 0}
    for press, lit in ((1, True), (2, False), (3, True)):
        done = broch("device", "press", "desk.button", "--app", "button-led", "--json")
        assert done.code == 0, done.err
        assert wait_for(broch, press) == {"lit": lit, "toggled": press}
    (port,) = (
        each
        for each in broch("device", "show", "wall", "--app", "button-led", "--json").json["ports"]
        if each["port"] == 2
    )
    assert port["owner"] == "led"
    assert port["out"] & 1
    status = broch("status", "button-led", "--json").json
    assert [each["refused"] for each in status["connections"]] == [0, 0, 0]

    page = subprocess.Popen(
        [sys.executable, str(EXAMPLE / "page.py"), "0"],
        env=broch.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with page:
        try:
            assert page.stdout is not None
            url = page.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            for _ in range(TRIES):
                text = urllib.request.urlopen(url, timeout=10).read().decode()
                if "<h1>3</h1>" in text:
                    break
            assert "<h1>3</h1>" in text
            assert "mulated" in text
            taken = subprocess.run(
                [sys.executable, str(EXAMPLE / "page.py"), url.rstrip("/").rpartition(":")[2]],
                env=broch.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert taken.returncode == 1
            assert taken.stderr.startswith("error: port ")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + "x", timeout=10)
        finally:
            page.terminate()
