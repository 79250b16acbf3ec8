"""The controller: it decides how much water the lawn gets, and keeps the totals.

It decides on a day when both reports of that day are in. The decision depends on these two and
nothing else, so a day that is asked again gets the same answer, and totals count a day once.
"""

from broch import Module, Struct

from .messages import DayReport, Moisture, Rain, Season, Watering

DRY = 22.0  # percent of volume: below it the lawn is watered, a little before it suffers (21)
MOIST = 24.0  # percent: up to which it is watered, so that rain still finds room (27 is full)
MM_PER_PERCENT = 5.0  # water that lifts the moisture of a root zone of 0.5 m by one percent
MOST = 15.0  # mm a day
RAINY = 3.0  # mm: after that much rain, watering can wait a day

module = Module("controller")
watering = module.output("watering", Watering)
day = module.output("day", DayReport)
finished = module.output("finished", Season)


class Summary(Struct):
    days: int
    irrigations: int
    water_mm: float
    timer_water_mm: float
    water_saved_percent: float
    stressed_days: int
    timer_stressed_days: int


class State:
    """What changes while the module runs."""

    moisture: Moisture | None = None  # the latest
    rain: Rain | None = None
    reported: int = -1  # the last day that the operator was told of
    finished: bool = False


@module.input
def moisture(reading: Moisture) -> None:
    State.moisture = reading
    decide()


@module.input
def rain(reading: Rain) -> None:
    State.rain = reading
    decide()


@module.input
def over(season: Season) -> None:
    if not State.finished:
        State.finished = True
        finished.emit(season)


@module.entry
def summary() -> Summary:
    """The season so far, against a timer that waters 25 mm a week from May to September."""
    latest, water = State.moisture, module.store.get("water", 0.0)
    timer = latest.timer_water if latest else 0.0
    return Summary(
        days=latest.day + 1 if latest else 0,
        irrigations=module.store.get("irrigations", 0),
        water_mm=round(water, 1),
        timer_water_mm=round(timer, 1),
        water_saved_percent=round(100 * (1 - water / timer), 1) if timer else 0.0,
        stressed_days=latest.stressed_days if latest else 0,
        timer_stressed_days=latest.timer_stressed_days if latest else 0,
    )


def decide() -> None:
    """Order water for the day whose reports are both in."""
    reading, station = State.moisture, State.rain
    if reading is None or station is None or reading.day != station.day:
        return
    water = water_for(reading.percent, station.rain)
    if water > 0 and reading.day > module.store.get("last", -1):
        module.store["last"] = reading.day
        module.store["irrigations"] = module.store.get("irrigations", 0) + 1
        module.store["water"] = module.store.get("water", 0.0) + water
    if reading.day > State.reported:
        State.reported = reading.day
        day.emit(
            DayReport(
                date=reading.date,
                moisture=round(reading.percent, 2),
                rain=station.rain,
                irrigation=water,
            )
        )
    watering.emit(Watering(day=reading.day, water=water))


def water_for(percent: float, rained: float) -> float:
    """mm for a lawn of this moisture, on a day with so much rain."""
    if percent >= DRY or rained >= RAINY:
        return 0.0
    return round(min(MOST, (MOIST - percent) * MM_PER_PERCENT), 1)
