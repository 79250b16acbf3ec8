"""Whole commands, run as a user runs them."""
