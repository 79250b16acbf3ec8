/* What a native module in C includes: the header of the TEE that it is compiled for. */
#ifndef BROCH_H
#define BROCH_H

#if defined(__MSP430__)
#include "broch/sancus.h"
#else
#include "broch/sgx.h"
#endif

#endif
