/* What a call gives back: records in OUT, one behind the other. */

#include "runtime.h"

u16 broch_out_size; /* bytes in OUT so far */

/* Room for a record of `size` bytes; the call ends if there is none. */
u8 *broch_record(u16 kind, u16 size)
{
    u16 padded = size + (size & 1);
    if (padded > BUFFER - 4 || broch_out_size > BUFFER - 4 - padded)
        broch_leave(STATUS_OUT_FULL);
    u16 *header = (u16 *)(OUT + broch_out_size);
    header[0] = kind;
    header[1] = size;
    u8 *bytes = (u8 *)(header + 2);
    if (size & 1)
        bytes[size] = 0;
    broch_out_size += 4 + padded;
    return bytes;
}

static u16 length(const char *text)
{
    u16 size = 0;
    while (size < BUFFER && text[size])
        size++;
    return size;
}

void broch_print(const char *text)
{
    u16 size = length(text);
    memcpy(broch_record(3, size), text, size);
}

void broch_result(u16 status, const void *data, u16 size)
{
    u8 *to = broch_record(2, size + 2);
    *(u16 *)to = status;
    memcpy(to + 2, data, size);
}

void broch_refuse(const char *why)
{
    if (broch_function == FUNCTION_ENTRY)
        broch_result(1, why, length(why));
    else
        broch_print(why); /* nobody waits for it */
    broch_leave(STATUS_REFUSED);
}
