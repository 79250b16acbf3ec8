"""What SGX and TDX share: Intel's DCAP quotes, certificates, collateral and TCB levels.

Not a TEE of its own but a helper of the folders that are. Every module of it is pure: no I/O, no
clock. The verification steps are numbered as in Intel's verification library
(:mod:`broch.tee.dcap.platform`).
"""
