"""An enclave process: launch, sandbox, ring, gate, runtime; and the machine that hosts a device."""
