/* A library enclave in C: called from Python (counter.py), and asking it back.
 *
 *     python examples/sgx-hello/counter.py
 */
#include "broch.h"

enum { ADD = 1, LARGEST = 2 };  /* calls */
enum { LOG = 1 };               /* ocalls */

static int64_t total;

static int32_t add(const void *data, size_t size) {
    int64_t number;
    char line[64];
    if (size != sizeof number)
        return -1;
    memcpy(&number, data, sizeof number);
    if (__builtin_add_overflow(total, number, &total))
        return -2;
    const int length = snprintf(line, sizeof line, "total is now %ld", total);
    broch_ocall(LOG, line, (size_t)length, NULL, NULL);
    broch_reply(&total, sizeof total);
    return 0;
}

/* Of numbers that the host sends: the copy is ours, so sorting out the largest needs no care. */
static int32_t largest(const int64_t *numbers, size_t size) {
    if (size == 0 || size % sizeof *numbers != 0)
        return -1;
    int64_t most = numbers[0];
    for (size_t i = 1; i < size / sizeof *numbers; i++)
        most = numbers[i] > most ? numbers[i] : most;
    broch_reply(&most, sizeof most);
    return 0;
}

int32_t broch_call(uint32_t number, const void *data, size_t size) {
    switch (number) {
    case ADD:
        return add(data, size);
    case LARGEST:
        return largest(data, size);
    default:
        return -EDP_INVALID_INPUT;
    }
}
