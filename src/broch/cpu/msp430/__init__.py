"""The MSP430, a 16-bit microcontroller, emulated to the instruction and to the cycle."""
