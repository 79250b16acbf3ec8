"""The irrigation example, without enclaves: its arithmetic, and that only the weather matters.

The modules run here in one process, on a host that delivers events in whatever order it likes,
loses some, and restarts modules. Real order is kept within a connection, as real connections do.
"""

import importlib
import importlib.util
import random
import sys
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import pytest

from broch import ModuleIdentity
from broch.image import PortKind

EXAMPLE: Final = Path(__file__).parents[3] / "examples" / "irrigation"
MODULES: Final = ("soil", "weather", "valve", "gateway", "controller")
DAYS: Final = 400


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's folder on the path, and its modules new."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [n for n in sys.modules if n == "field" or n.partition(".")[0] == "modules"]:
        del sys.modules[name]


@pytest.fixture
def balance(example: None) -> ModuleType:
    return importlib.import_module("modules.balance")


@pytest.fixture
def field(example: None) -> ModuleType:
    if importlib.util.find_spec("vega_datasets") is None:
        pytest.skip("vega-datasets is not installed")
    return importlib.import_module("field")


# The arithmetic, against the worked examples of FAO-56.


def test_radiation_on_3_september_at_20_south(balance: ModuleType) -> None:
    """FAO-56, example 8."""
    radiation = balance.extraterrestrial_radiation(-20, 246)
    assert radiation == pytest.approx(32.2, abs=0.05)
    assert radiation * balance.MM_PER_MJ == pytest.approx(13.1, abs=0.05)


def test_radiation_and_evapotranspiration_of_lyon_in_july(balance: ModuleType) -> None:
    """FAO-56, examples 15 (Ra at 45 degrees 43 minutes north) and 20 (14.8 to 26.6 Celsius)."""
    radiation = balance.extraterrestrial_radiation(45 + 43 / 60, 196)
    assert radiation == pytest.approx(40.6, abs=0.05)
    wanted = balance.reference_evapotranspiration(14.8, 26.6, radiation)
    assert wanted == pytest.approx(5.0, abs=0.05)


def test_the_sun_does_not_rise_in_a_polar_night(balance: ModuleType) -> None:
    assert balance.extraterrestrial_radiation(80, 355) == pytest.approx(0, abs=1e-9)


def test_nothing_evaporates_in_deep_cold_or_without_a_spread(balance: ModuleType) -> None:
    assert balance.reference_evapotranspiration(-30, -20, 20) == 0
    assert balance.reference_evapotranspiration(10, 10, 20) == 0
    assert balance.reference_evapotranspiration(11, 10, 20) == 0  # a broken thermometer


def tomato(balance: ModuleType) -> Any:
    """FAO-56, example 38: tomatoes on silty loam."""
    return balance.Ground(
        field_capacity=0.32, wilting_point=0.12, root_depth=0.8, readily=0.40, crop=1.2
    )


def test_water_that_a_ground_holds(balance: ModuleType) -> None:
    ground = tomato(balance)
    assert ground.available == pytest.approx(160)
    assert ground.readily_available == pytest.approx(64)


@pytest.mark.parametrize(
    ("depletion", "stress"),
    [(0, 1), (64, 1), (65.5, 0.984), (112, 0.5), (160, 0), (200, 0)],
)
def test_stress(balance: ModuleType, depletion: float, stress: float) -> None:
    assert tomato(balance).stress(depletion) == pytest.approx(stress, abs=0.001)


def test_moisture_runs_from_field_capacity_to_wilting_point(balance: ModuleType) -> None:
    ground = tomato(balance)
    assert ground.percent(0) == pytest.approx(32)
    assert ground.percent(ground.available) == pytest.approx(12)


def test_a_day_takes_and_gives_water_within_bounds(balance: ModuleType) -> None:
    ground = tomato(balance)
    assert ground.next_day(20, rain=0, evapotranspiration=5) == pytest.approx(26)
    assert ground.next_day(20, rain=6, evapotranspiration=5) == pytest.approx(20)
    assert ground.next_day(20, rain=100, evapotranspiration=5) == 0  # the rest drains away
    assert ground.next_day(112, rain=0, evapotranspiration=5) == pytest.approx(115)  # Ks 0.5
    assert ground.next_day(160, rain=0, evapotranspiration=5) == 160


def test_what_fills_a_percent_is_what_the_controller_reckons_with(balance: ModuleType) -> None:
    controller = importlib.import_module("modules.controller")
    ground = balance.LAWN_ON_LOAM
    assert ground.percent(10) - ground.percent(10 + controller.MM_PER_PERCENT) == pytest.approx(1)
    assert ground.percent(ground.readily_available) < controller.DRY < controller.MOIST
    assert ground.percent(0) > controller.MOIST


# The device side.


def test_the_weather_is_found_and_its_package_not_imported(field: ModuleType) -> None:
    season = field.SEASON
    assert len(season) == 1461
    assert (season[0]["date"], season[-1]["date"]) == ("2012-01-01", "2015-12-31")
    assert season[59]["date"] == "2012-02-29"
    assert field.sample(1461) is None
    assert field.collected(1) == 10.9
    assert "vega_datasets" not in sys.modules


def test_missing_weather_says_how_to_get_it(example: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps vega-datasets"):
        importlib.import_module("field")


# The circle of modules.


def weather(days: int) -> list[dict[str, Any]]:
    """Made-up weather: dry and warm summers, wet winters."""
    dice = random.Random(7)
    season = []
    for number in range(days):
        today = date(2020, 3, 1) + timedelta(number)
        is_summer = 5 <= today.month <= 9
        low = 12.0 if is_summer else 3.0
        season.append(
            {
                "date": today.isoformat(),
                "day_of_year": today.timetuple().tm_yday,
                "rain": dice.choice([0, 0, 0, 0, 0, 8]) if is_summer else dice.choice([0, 3, 9]),
                "temp_min": low,
                "temp_max": low + dice.uniform(4, 14),
            }
        )
    return season


class Enclave:
    """One module, running; the host of its author's code."""

    def __init__(self, farm: "Farm", name: str) -> None:
        self.farm, self.name = farm, name
        sys.modules.pop(f"modules.{name}", None)
        self.code = importlib.import_module(f"modules.{name}")
        self.module = self.code.module
        self.module._attach(self)

    def declared(self, name: str) -> Any:
        return next(d for d in self.module._declared if d.port.name == name)

    def emit(self, port: int, value: Any) -> None:
        self.commit()
        data = msgspec.msgpack.encode(value)
        self.farm.send(f"{self.name}.{self.module._declared[port].port.name}", data)

    def deliver(self, port: str, data: bytes) -> None:
        declared = self.declared(port)
        assert declared.port.kind is PortKind.INPUT
        declared.function(msgspec.msgpack.decode(data, type=declared.argument))
        self.commit()

    def ocall(self, port: int, value: Any) -> Any:
        self.commit()
        declared = self.module._declared[port]
        answer = self.farm.ocall(f"{self.name}.{declared.port.name}", msgspec.to_builtins(value))
        return msgspec.convert(answer, declared.result)

    def load_store(self) -> dict[str, Any]:
        stored: dict[str, Any] = msgspec.msgpack.decode(self.farm.disk.get(self.name, b"\x80"))
        return stored

    def store_changed(self) -> None:
        self.dirty = True

    dirty = False

    def commit(self) -> None:
        if self.dirty:
            self.dirty = False
            self.farm.disk[self.name] = msgspec.msgpack.encode(self.module.store._snapshot())

    def request(self, port: int, value: Any) -> Any:
        raise NotImplementedError

    def derive_key(self, label: str) -> bytes:
        raise NotImplementedError

    def sign(self, data: bytes) -> bytes:
        raise NotImplementedError

    def identity(self) -> ModuleIdentity:
        raise NotImplementedError


class Farm:
    """The whole application: connections as the descriptor has them, and a host with moods."""

    def __init__(
        self,
        season: list[dict[str, Any]],
        dice: random.Random,
        trouble: float,
        disk: dict[str, bytes] | None = None,
    ) -> None:
        descriptor = tomllib.loads((EXAMPLE / "app.toml").read_text())
        self.season, self.dice, self.trouble = season, dice, trouble
        self.targets: dict[str, list[str]] = {}
        for connection in descriptor["connections"]:
            self.targets.setdefault(connection["from"], []).append(connection["to"])
        self.queues: dict[tuple[str, str], deque[bytes]] = {}
        self.operator: dict[str, list[Any]] = {}
        self.disk = disk if disk is not None else {}
        self.driven: list[tuple[int, float]] = []
        self.restarts = 0
        self.enclaves = {name: Enclave(self, name) for name in MODULES}

    def send(self, source: str, data: bytes) -> None:
        for target in self.targets.get(source, []):
            if target == "operator":
                self.operator.setdefault(source, []).append(msgspec.msgpack.decode(data))
            else:
                self.queues.setdefault((source, target), deque()).append(data)

    def ocall(self, name: str, value: Any) -> Any:
        if name == "soil.sample":
            return self.season[value] if value < len(self.season) else None
        if name == "weather.collected":
            return self.season[value]["rain"]
        assert name == "valve.drive"
        self.driven.append((value["day"], value["water"]))
        return None

    def step(self) -> None:
        """Deliver one event of any connection; kick where nothing moves."""
        waiting = sorted(key for key, queue in self.queues.items() if queue)
        if not waiting or self.dice.random() < self.trouble / 4:
            self.enclaves["soil"].declared("kick").function()
            self.enclaves["soil"].commit()
            return
        key = self.dice.choice(waiting)
        data = self.queues[key].popleft()
        if self.dice.random() < self.trouble:
            return  # lost
        module, _, port = key[1].partition(".")
        self.enclaves[module].deliver(port, data)
        if self.dice.random() < self.trouble:
            self.restart(self.dice.choice(MODULES))

    def restart(self, name: str) -> None:
        """A new process: state in memory and events under the old keys are gone."""
        self.restarts += 1
        self.enclaves[name] = Enclave(self, name)
        for source, target in self.queues:
            if name in (source.partition(".")[0], target.partition(".")[0]):
                self.queues[source, target].clear()

    def run(self) -> dict[str, Any]:
        """Until the season is over; the controller's summary."""
        for _ in range(200 * len(self.season)):
            if "controller.finished" in self.operator:
                break
            self.step()
        (finished,) = self.operator["controller.finished"]
        assert finished["days"] == len(self.season)
        summary: dict[str, Any] = msgspec.to_builtins(self.enclaves["controller"].code.summary())
        return summary


def run(seed: int, trouble: float) -> tuple[Farm, dict[str, Any]]:
    farm = Farm(weather(DAYS), random.Random(seed), trouble)
    return farm, farm.run()


def days_seen(farm: Farm) -> Mapping[str, Any]:
    return {day["date"]: day for day in farm.operator["controller.day"]}


def test_a_season(example: None) -> None:
    farm, summary = run(seed=0, trouble=0)
    days = farm.operator["controller.day"]
    assert [day["date"] for day in days] == [day["date"] for day in farm.season]
    watered = [day for day in days if day["irrigation"] > 0]
    assert summary["days"] == DAYS
    assert summary["irrigations"] == len(watered) == len(farm.driven) > 10
    assert summary["water_mm"] == pytest.approx(sum(day["irrigation"] for day in watered))
    assert summary["stressed_days"] < summary["timer_stressed_days"]
    assert all(day["moisture"] < 22 and day["rain"] < 3 for day in watered)


@pytest.mark.parametrize("seed", range(4))
def test_the_outcome_does_not_depend_on_timing(example: None, seed: int) -> None:
    calm, expected = run(seed=0, trouble=0)
    other, summary = run(seed=seed, trouble=0)
    assert summary == expected
    assert other.operator["controller.day"] == calm.operator["controller.day"]
    assert other.driven == calm.driven


@pytest.mark.parametrize("seed", range(6))
def test_losses_and_restarts_only_delay(example: None, seed: int) -> None:
    calm, expected = run(seed=0, trouble=0)
    rough, summary = run(seed=seed, trouble=0.02)
    assert rough.restarts > 5, "the test was vacuous"
    assert summary == expected
    assert days_seen(rough) == days_seen(calm)
    assert set(rough.driven) <= set(calm.driven)
    assert len(set(rough.driven)) == len(rough.driven), "the valve opened twice for a day"


def test_the_next_run_is_a_season_of_its_own(example: None) -> None:
    first, expected = run(seed=0, trouble=0)
    second = Farm(weather(DAYS), random.Random(1), 0, first.disk)
    assert second.run() == expected
    assert second.driven == first.driven


def test_a_run_that_was_cut_off_goes_on(example: None) -> None:
    calm, expected = run(seed=0, trouble=0)
    first = Farm(weather(DAYS), random.Random(1), 0)
    while len(first.driven) < 5:
        first.step()
    second = Farm(weather(DAYS), random.Random(2), 0, first.disk)
    assert second.run() == expected
    assert first.driven + second.driven == calm.driven


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("moisture", {"season": 1, "day": 0, "date": "", "percent": 101.0, "irrigations": 0,
                      "water": 0.0, "stressed_days": 0,
                      "timer_water": 0.0, "timer_stressed_days": 0}),
        ("rain", {"season": 1, "day": 0, "rain": -1.0}),
        ("rain", {"season": 1, "day": 0, "rain": float("nan")}),
        ("watering", {"season": 1, "day": 0, "water": 26.0}),
    ],
)  # fmt: skip
def test_the_gateway_refuses_what_cannot_be(
    example: None, port: str, message: dict[str, Any]
) -> None:
    farm = Farm([], random.Random(0), 0)
    with pytest.raises(Exception, match=r"is not in 0 to") as caught:
        farm.enclaves["gateway"].deliver(port, msgspec.msgpack.encode(message))
    assert type(caught.value).__name__ == "Refused"
    assert not any(farm.queues.values())
