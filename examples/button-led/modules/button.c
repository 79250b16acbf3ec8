/* The button: a driver of its own owns port 1, so nothing else on the microcontroller sees the pin
 * or can pretend that it changed. The host may call the interrupt when it likes, so the port's own
 * flag is asked, and cleared, before a press is believed. */

#include "broch.h"

#define BUTTON 0x01 /* pin 1.0: high while pressed */

BROCH_DRIVER(pins, 0x20, 0x28); /* all of port 1 */

BROCH_STRUCT(Press, (u32, number));
BROCH_OUTPUT(pressed, Press);

static u32 presses;

BROCH_START
{
    broch_clear(pins, BROCH_P1IES, BUTTON); /* the edge from low to high */
    broch_write(pins, BROCH_P1IFG, 0);
    broch_set(pins, BROCH_P1IE, BUTTON);
}

BROCH_INTERRUPT(edge, 2)
{
    if (!(broch_clear(pins, BROCH_P1IFG, BUTTON) & BUTTON))
        return;
    Press press = {++presses};
    pressed(&press);
}
