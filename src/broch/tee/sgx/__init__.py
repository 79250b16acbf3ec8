"""Intel SGX: images as SGXS streams with SIGSTRUCT, an emulated CPU, DCAP quotes (v3).

>>> from broch.tee.sgx import TEE
>>> TEE.name, TEE.report_data_size
('sgx', 64)

A sealing key is bound to the exact code (MRENCLAVE) or to the signer, the product id and the
security version (MRSIGNER, ISVPRODID, ISVSVN). Monotonic counters are bound to the exact code and
its signer: the next version of a module begins with new ones.

This package is in the runtime closure, so importing it imports nothing that is not needed yet.
"""

from broch.tee.sgx.kind import TEE

__all__ = ["TEE"]
