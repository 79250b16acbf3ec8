"""Envelopes common to several TEEs: strict CBOR, COSE_Sign1 and COSE_Mac0, X.509 read strictly.

Everything here is pure: no I/O, no clock, no policy. What a message means is decided above.

>>> from broch.wire import cbor
>>> cbor.decode(bytes.fromhex("a10126"), what="header")
{1: -7}
"""
