"""bench/common.py: what the scripts print is an interface, and the bars decide as they read."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

FILE: Final = Path(__file__).parents[2] / "bench" / "common.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_common", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_common"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


common = _load()


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [
        (1.5, "<= 1.5", True),
        (1.51, "<= 1.5", False),
        (20_000, ">= 20,000", True),
        (19_999.9, ">= 20,000", False),
        (1.5, "< 1.5", False),
        (1.5, "> 1.5", False),
        (1.6, "> 1.5", True),
        (7, "", True),
    ],
)
def test_bars(value: float, bar: str, met: bool) -> None:
    assert common.Figure(name="f", value=value, unit="us", bar=bar).met is met


@pytest.mark.parametrize("bar", ["1.5", "<=1.5", "<= x", "about 3", "<= 1.5 us"])
def test_a_bar_that_nobody_can_decide_is_refused(bar: str) -> None:
    with pytest.raises(ValueError, match="is not like"):
        common.Figure(name="f", value=1, unit="us", bar=bar)


def test_json_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [
        common.Figure(name="ring_64B_us", value=0.91234, unit="us", bar="<= 1.5"),
        common.Figure(name="events_per_s", value=19_000.4, unit="events/s", bar=">= 20,000"),
        common.Figure(name="for_the_record", value=0.00012, unit="s"),
    ]
    common.run(lambda: figures, ["--json"])
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["ring_64B_us", "events_per_s", "for_the_record"]
    assert printed["ring_64B_us"] == {"value": 0.91234, "unit": "us", "bar": "<= 1.5", "met": True}
    assert printed["events_per_s"]["met"] is False

    common.run(lambda: figures, [])
    assert capsys.readouterr().out.splitlines() == [
        "figure            value  unit      bar        met",
        "ring_64B_us      0.9123  us        <= 1.5     yes",
        "events_per_s     19,000  events/s  >= 20,000  NO",
        "for_the_record  0.00012  s",
    ]
