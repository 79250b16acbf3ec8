"""The weather station: it tells the controller how much rain a day brought. It keeps no state."""

from broch import Module

from .messages import Day, Rain

module = Module("weather")
rain = module.output("rain", Rain)
collected = module.ocall("collected", int, float)  # mm of rain, of a day


@module.input
def day(today: Day) -> None:
    rain.emit(Rain(season=today.season, day=today.day, rain=collected(today.day)))
