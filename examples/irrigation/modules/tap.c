/* The tap of the raised bed: its driver owns port 2, so the valve at pin 2.0 moves when the gardener
 * says so, and for no other reason. */

#include "broch.h"

#define VALVE 0x01 /* pin 2.0: high is open */

BROCH_DRIVER(valve, 0x28, 0x30); /* all of port 2 */

BROCH_STRUCT(Turn, (bool, open));

BROCH_START
{
    broch_write(valve, BROCH_P2OUT, 0);
    broch_set(valve, BROCH_P2DIR, VALVE);
}

BROCH_INPUT(turn, Turn, order)
{
    if (order->open)
        broch_set(valve, BROCH_P2OUT, VALVE);
    else
        broch_clear(valve, BROCH_P2OUT, VALVE);
}
