"""Broch: applications whose parts live in trusted execution environments."""
