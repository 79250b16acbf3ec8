"""The valve: it waters once for every day that orders water, and reports back to the soil sensor.

The last day that it watered is stored, before it waters, so that an order that comes again after a
restart does not open the valve again.
"""

from broch import Module

from .messages import Watering

module = Module("valve")
watered = module.output("watered", Watering)
drive = module.ocall("drive", Watering, None)


@module.input
def watering(order: Watering) -> None:
    is_new = order.season != module.store.get("season") or order.day > module.store["day"]
    if order.water > 0 and is_new:
        module.store["season"], module.store["day"] = order.season, order.day
        drive(order)
    watered.emit(order)
