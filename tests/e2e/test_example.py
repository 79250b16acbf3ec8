"""The irrigation example, as the README has users run it."""

import importlib.util
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from broch.errors import UsageError
from broch.image.toolchain import find

from .conftest import SECONDS, Broch

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "irrigation"
SUMMARY: Final = {
    "days": 1461,
    "irrigations": 147,
    "water_mm": 1783.9,
    "timer_water_mm": 2175.0,
    "water_saved_percent": 18.0,
    "stressed_days": 6,
    "timer_stressed_days": 156,
}


@pytest.fixture
def app(broch: Broch, request: pytest.FixtureRequest) -> str:
    """The example's descriptor, under a name of this test's own."""
    if importlib.util.find_spec("vega_datasets") is None:
        pytest.skip("vega-datasets is not installed")
    try:
        find("msp430")
    except UsageError as exc:
        pytest.skip(f"{exc.message}: {exc.hint}")
    folder = broch.folder / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "app.toml"
    name = request.node.name.replace("test_", "")[:40]
    path.write_text(path.read_text().replace('name = "irrigation"', f'name = "{name}"'))
    return str(path)


def shorten(app: str, days: int) -> None:
    """Let the season have fewer days."""
    field = Path(app).parent / "field.py"
    text = field.read_text()
    assert "SEASON = read_season()\n" in text
    field.write_text(text.replace("= read_season()\n", f"= read_season()[:{days}]\n"))


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    assert result["reason"] == "until"
    summary: dict[str, Any] = result["summary"]
    return summary


def test_four_seasons(broch: Broch, app: str) -> None:
    report = broch.folder / "season.html"
    done = broch("up", app, "--json", "--report", str(report))
    assert done.code == 0, done.err
    assert outcome(done.json) == pytest.approx(SUMMARY)
    status = done.json["status"]
    assert {m["verdict"] for m in status["modules"]} == {"accepted"}
    assert {m["seals_to"] for m in status["modules"]} == {"uuid", "code", None}
    assert all(m["emulated"] for m in status["modules"])
    counts = {c["from"]: c["events"] for c in status["connections"]}
    assert all(count >= 1461 for source, count in counts.items() if not source.endswith(
        (".over", ".over_out", ".finished", "probe.moisture", "gardener.tap")
    ))  # fmt: skip
    assert all(c["gaps"] == c["refused"] == 0 for c in status["connections"])
    page = report.read_text()
    for expected in ("Four seasons of a lawn", "1,461", "emulated", "<svg", "polyline"):
        assert expected in page
    broch.check_nothing_is_left("four_seasons", status)


def test_shown_to_people(broch: Broch, app: str) -> None:
    shorten(app, 200)
    done = broch("up", app)
    assert done.code == 0, done.err
    assert "Moisture of the ground (% of volume)" in done.out
    assert any(0x2800 < ord(character) <= 0x28FF for character in done.out)
    assert re.search(r"^days +200$", done.out, re.MULTILINE)
    rows = [line for line in done.out.splitlines() if "accepted" in line]
    assert len(rows) == 8
    assert all("emulated" in row for row in rows)


def test_killed_enclaves_only_delay(broch: Broch, app: str) -> None:
    shorten(app, 500)
    started = broch("up", app, "--detach", "--json")
    assert started.code == 0, started.err
    name = started.json["app"]
    with broch.start("events", name, "--follow") as events:
        assert events.stdout is not None
        first, begun = events.stdout.readline(), events.stdout.readline()
        assert first.endswith("state: running\n")
        assert "controller.day" in begun  # the season has begun
        for module in started.json["status"]["modules"]:
            if module["name"] in ("soil", "valve"):
                os.kill(module["pid"], signal.SIGKILL)
        out = events.stdout.read()
        assert events.wait(SECONDS) == 0
    assert "soil restart: restarted (1)" in out
    assert "valve restart: restarted (1)" in out
    assert 'controller.finished {"days": 500}' in out
    last = [line for line in out.splitlines() if "controller.day" in line][-1]
    assert '"date": "2013-05-14"' in last
    broch.check_nothing_is_left(name, started.json["status"])


def test_without_the_weather(broch: Broch, app: str) -> None:
    field = Path(app).parent / "field.py"
    field.write_text(field.read_text().replace('"vega_datasets"', '"vega_datasets_is_missing"'))
    done = broch("up", app, "--json")
    assert done.code == 2
    assert "pip install --no-deps vega-datasets" in done.json["error"]["message"]
    broch.check_nothing_is_left("without_the_weather")
