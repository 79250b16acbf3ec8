/* The LED: a driver of its own owns port 2, so only a toggle from the gateway changes the pin. */

#include "broch.h"

#define LED 0x01 /* pin 2.0 */

BROCH_DRIVER(pins, 0x28, 0x30); /* all of port 2 */

BROCH_STRUCT(Toggle, (u32, number));
BROCH_STRUCT(State, (bool, lit), (u32, toggled));

static u32 toggled;

BROCH_START
{
    broch_write(pins, BROCH_P2OUT, 0);
    broch_set(pins, BROCH_P2DIR, LED);
}

BROCH_INPUT(toggle, Toggle, order)
{
    (void)order;
    broch_toggle(pins, BROCH_P2OUT, LED);
    toggled++;
}

BROCH_ENTRY(state, none, ask, State, reply)
{
    (void)ask;
    reply->lit = broch_read(pins, BROCH_P2OUT) & LED;
    reply->toggled = toggled;
}
