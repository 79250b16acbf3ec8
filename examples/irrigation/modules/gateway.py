"""The farm's gateway: it forwards between field and cloud, and nothing that cannot be true.

Both sides are attested, but a probe may break: what is out of range is refused, which the operator
sees as a refused event on that connection. It keeps no state.
"""

from broch import Module, Refused

from .messages import Moisture, Rain, Season, Watering

MOST_RAIN = 500.0  # mm a day; the most ever measured near Seattle is about a third of it
MOST_WATER = 25.0  # mm a day that the lawn can take in

module = Module("gateway")
moisture_out = module.output("moisture_out", Moisture)
rain_out = module.output("rain_out", Rain)
over_out = module.output("over_out", Season)
watering_out = module.output("watering_out", Watering)


def check(what: str, value: float, most: float) -> None:
    if not 0 <= value <= most:  # not a number is refused, too
        raise Refused(f"{what} of {value} is not in 0 to {most}")


@module.input
def moisture(reading: Moisture) -> None:
    check("moisture", reading.percent, 100.0)
    moisture_out.emit(reading)


@module.input
def rain(reading: Rain) -> None:
    check("rain", reading.rain, MOST_RAIN)
    rain_out.emit(reading)


@module.input
def over(season: Season) -> None:
    over_out.emit(season)


@module.input
def watering(order: Watering) -> None:
    check("water", order.water, MOST_WATER)
    watering_out.emit(order)
