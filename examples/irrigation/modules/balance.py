"""The water in the root zone, day by day, after FAO Irrigation and Drainage Paper 56.

Equation numbers are those of Allen, Pereira, Raes and Smith, "Crop evapotranspiration", FAO 1998.
Water is counted in mm (litres per square metre), radiation in MJ per square metre and day.
"""

import math
from dataclasses import dataclass

SOLAR_CONSTANT = 0.0820  # MJ per square metre and minute
MM_PER_MJ = 0.408  # water that one MJ evaporates (equation 20)


def extraterrestrial_radiation(latitude: float, day_of_year: int) -> float:
    """Ra: the sun's radiation on top of the atmosphere; latitude in degrees, south negative."""
    phi = math.radians(latitude)  # equation 22
    angle = 2 * math.pi * day_of_year / 365
    distance = 1 + 0.033 * math.cos(angle)  # equation 23
    declination = 0.409 * math.sin(angle - 1.39)  # equation 24
    cosine = -math.tan(phi) * math.tan(declination)
    sunset = math.acos(max(-1.0, min(1.0, cosine)))  # equation 25
    return (  # equation 21
        24
        * 60
        / math.pi
        * SOLAR_CONSTANT
        * distance
        * (
            sunset * math.sin(phi) * math.sin(declination)
            + math.cos(phi) * math.cos(declination) * math.sin(sunset)
        )
    )


def reference_evapotranspiration(temp_min: float, temp_max: float, radiation: float) -> float:
    """ET0 in mm a day by Hargreaves and Samani (equation 52), from temperatures in Celsius."""
    mean = (temp_min + temp_max) / 2
    spread = math.sqrt(max(0.0, temp_max - temp_min))
    return max(0.0, 0.0023 * (mean + 17.8) * spread * MM_PER_MJ * radiation)


@dataclass(frozen=True)
class Ground:
    """A soil and what grows on it."""

    field_capacity: float  # volume of water in a volume of soil that has drained
    wilting_point: float  # the same where plants can draw no more
    root_depth: float  # m
    readily: float  # p: the share of the available water that is drawn without stress
    crop: float  # Kc: evapotranspiration of the crop against the reference

    @property
    def available(self) -> float:
        """TAW in mm (equation 82)."""
        return 1000 * (self.field_capacity - self.wilting_point) * self.root_depth

    @property
    def readily_available(self) -> float:
        """RAW in mm (equation 83)."""
        return self.readily * self.available

    def stress(self, depletion: float) -> float:
        """Ks (equation 84): 1 while water is readily available, 0 at the wilting point."""
        if depletion <= self.readily_available:
            return 1.0
        return max(0.0, (self.available - depletion) / (self.available - self.readily_available))

    def percent(self, depletion: float) -> float:
        """Moisture in percent of volume, as a probe would show it (from equation 87)."""
        return 100 * self.field_capacity - depletion / (10 * self.root_depth)

    def next_day(self, depletion: float, rain: float, evapotranspiration: float) -> float:
        """Dr at the end of a day (equation 85): what is missing to field capacity, in mm.

        Runoff and capillary rise are left out; more water than the soil holds drains away.
        """
        wanted = self.stress(depletion) * self.crop * evapotranspiration  # equation 81
        return min(self.available, max(0.0, depletion - rain + wanted))


#: A lawn on loam: FAO-56 table 19 (loam), table 22 (turf grass), table 12 (cool season).
LAWN_ON_LOAM = Ground(
    field_capacity=0.27, wilting_point=0.12, root_depth=0.5, readily=0.40, crop=0.95
)
