"""Attested TLS."""
