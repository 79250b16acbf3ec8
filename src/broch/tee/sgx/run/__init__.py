"""Run SGX enclaves of the Fortanix ABI (EDP) on an emulated CPU with SGX.

    loading     ECREATE to EINIT on the device, and the memory that results
    leaves      EENTER, EEXIT, EREPORT, EGETKEY
    runner      the threads of one enclave: from stop to stop
    usercalls   what an enclave asks of its host, number by number
    streams     files and TCP connections behind usercalls
    ends        how a run ends, and how that is explained

Sources: fortanix-sgx-abi 0.6.1, FORTANIX-SGX-ABI.md; SDM 3D chapters 38 and 40.

Nothing here protects an enclave from its host: keys are software, memory can be read.
"""
