/* A quote, of a host that knows how to make one (docs/sgx-run.md): it gives the TARGETINFO of its
 * quoting enclave, takes a REPORT for it, gives a length (u32) and the quote. */
#include "internal.h"

#define SERVICE "quote.broch"

/* All of size bytes; 0, or a negative error. */
static int64_t read_all(int64_t stream, void *out, size_t size) {
    uint8_t *bytes = out;
    for (size_t done = 0; done < size;) {
        const int64_t some = broch_read(stream, bytes + done, size - done);
        if (some <= 0)
            return some < 0 ? some : -EDP_UNEXPECTED_EOF;
        done += (size_t)some;
    }
    return 0;
}

static int64_t exchange(int64_t stream, const uint8_t *data, uint8_t *out, size_t room) {
    uint8_t target[BROCH_TARGETINFO_SIZE], report[BROCH_REPORT_SIZE];
    uint32_t size;
    int64_t error = read_all(stream, target, sizeof target);
    if (error != 0)
        return error;
    broch_report(target, data, report);
    const int64_t written = broch_write(stream, report, sizeof report);
    if (written != sizeof report)
        return written < 0 ? written : -EDP_UNEXPECTED_EOF;
    error = read_all(stream, &size, sizeof size);
    if (error != 0)
        return error;
    if (size > room)
        return -EDP_INVALID_DATA;
    error = read_all(stream, out, size);
    return error != 0 ? error : size;
}

int64_t broch_quote(const uint8_t data[BROCH_REPORT_DATA_SIZE], void *out, size_t room) {
    const int64_t stream = broch_connect(SERVICE);
    if (stream < 0)
        return stream;
    const int64_t size = exchange(stream, data, out, room);
    broch_close(stream);
    return size;
}
