"""Only what `cryptography` lacks: AEAD channels with counters, Ed25519 with SHA3-512."""
