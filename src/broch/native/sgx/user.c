/* Memory of the host: the only place that touches it.
 *
 * Writes are whole aligned words, so that no stale bytes of ours leave with a part of one
 * (Intel-SA-00615); reads are whole aligned words too (Intel-SA-00657), each read exactly once, for
 * the host may change them at any time. The edges of the enclave are aligned, so no word lies
 * across one. */
#include "internal.h"

static uint64_t enclave_size(void) {
    return broch_at_enclave_size;
}

bool broch_is_outside(const volatile void *memory, size_t size) {
    const uint64_t start = (uint64_t)memory, base = enclave_base();
    uint64_t end;
    if (__builtin_add_overflow(start, size, &end))
        return false;
    return end <= base || start >= base + enclave_size();
}

bool broch_is_inside(const volatile void *memory, size_t size) {
    const uint64_t start = (uint64_t)memory, base = enclave_base();
    uint64_t end;
    if (__builtin_add_overflow(start, size, &end))
        return false;
    return start >= base && end <= base + enclave_size();
}

void user_check(uint64_t address, uint64_t size) {
    if (address == 0 || !broch_is_outside((const void *)address, size))
        broch_abort("the host gave a pointer that is not to memory of its own");
    __asm__ volatile("lfence" ::: "memory"); /* nobody runs ahead of the check */
}

void user_check_aligned(uint64_t address, uint64_t size) {
    if (address % 8 != 0)
        broch_abort("the host gave a pointer that is not aligned");
    user_check(address, size);
}

uint64_t user_alloc(uint64_t size) {
    if (size > UINT64_MAX - 7)
        broch_abort("more memory of the host than there can be");
    const uint64_t room = round_up(size);
    const struct broch_result made = broch_usercall(USERCALL_ALLOC, room, 8, 0, 0);
    if (usercall_result(made.first) != 0)
        broch_abort("the host has no memory left for a usercall");
    user_check_aligned(made.second, room);
    return made.second;
}

void user_free(uint64_t address, uint64_t size, uint64_t align) {
    broch_usercall(USERCALL_FREE, address, size, align, 0);
}

void user_write(uint64_t to, const void *from, uint64_t size) {
    const uint8_t *bytes = from;
    user_check_aligned(to, round_up(size));
    for (uint64_t done = 0; done < size; done += 8) {
        uint64_t word = 0;
        const uint64_t left = size - done;
        memcpy(&word, bytes + done, left < 8 ? left : 8);
        *(volatile uint64_t *)(to + done) = word;
    }
}

void user_read(void *to, uint64_t from, uint64_t size) {
    uint8_t *bytes = to;
    user_check(from, size);
    uint64_t done = 0;
    while (done < size) {
        const uint64_t skip = (from + done) % 8, left = size - done;
        const uint64_t word = *(const volatile uint64_t *)(from + done - skip);
        const uint64_t some = left < 8 - skip ? left : 8 - skip;
        memcpy(bytes + done, (const uint8_t *)&word + skip, some);
        done += some;
    }
}

struct byte_buffer user_read_buffer(uint64_t from) {
    struct byte_buffer buffer;
    user_check_aligned(from, sizeof buffer);
    user_read(&buffer, from, sizeof buffer);
    return buffer;
}

void user_write_buffer(uint64_t to, struct byte_buffer buffer) {
    user_write(to, &buffer, sizeof buffer);
}
