"""Instruction sets that Broch runs by itself."""
