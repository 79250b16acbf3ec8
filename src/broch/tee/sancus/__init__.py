"""Sancus: protected modules on a 16-bit microcontroller, an MSP430."""
