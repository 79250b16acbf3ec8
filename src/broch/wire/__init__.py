"""Formats that several floors share: strict CBOR and JSON, COSE, JWS, X.509, TOML with lines.

Everything here is pure: no clock, no policy, no I/O but that of ``toml_places.read``. What a
message means is decided above.

>>> from broch.wire import cbor
>>> cbor.decode(bytes.fromhex("a10126"), what="header")
{1: -7}
"""
