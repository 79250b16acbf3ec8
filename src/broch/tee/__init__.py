"""One folder per TEE behind one contract (:mod:`broch.tee.contract`)."""
