"""Keystone behind the contract."""
