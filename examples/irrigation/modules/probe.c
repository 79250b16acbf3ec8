/* The probe in the raised bed: its driver owns port 1, where a sensor puts the moisture as eight
 * bits, so nobody else on the microcontroller can read it, or answer for it. What is new is told. */

#include "broch.h"

BROCH_DRIVER(sensor, 0x20, 0x28); /* all of port 1 */

BROCH_STRUCT(Percent, (u8, percent));
BROCH_OUTPUT(moisture, Percent);

static u16 told = 0x100; /* what was told last; nothing yet */

BROCH_EVERY(measure, 500)
{
    Percent reading = {broch_read(sensor, BROCH_P1IN)};
    if (reading.percent > 100 || reading.percent == told)
        return; /* a sensor may break */
    told = reading.percent;
    moisture(&reading);
}
