"""Fetching endorsements."""
