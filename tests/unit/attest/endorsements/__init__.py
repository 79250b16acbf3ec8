"""Endorsements."""
