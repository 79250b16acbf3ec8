/* What a native module in C includes. Each TEE has its own start file and its own header, and both
 * give the part that is common: put, log, seal_key, report, ocall where the hardware has them. */
#ifndef BROCH_H
#define BROCH_H

#if defined(__MSP430__)
#include "broch/sancus.h"
#else
#include "broch/sgx.h"
#endif

#endif
