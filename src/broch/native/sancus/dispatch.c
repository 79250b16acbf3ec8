/* From what the host asks to the author's function. */

#include "runtime.h"

enum { INPUT = 1, OUTPUT, ENTRY, EVERY, INTERRUPT }; /* kinds of ports */

extern const struct broch_port broch_table_start[], broch_table_end[];

__attribute__((weak)) void broch_start(void) {}

const struct broch_port *broch_port(u16 number, u16 kind)
{
    const struct broch_port *port = &broch_table_start[number];
    u16 count = broch_table_end - broch_table_start;
    return number < count && port->kind == kind ? port : NULL;
}

u16 broch_port_number(const struct broch_port *port)
{
    return port - broch_table_start;
}

static u16 enter(u16 size)
{
    static u8 ask[MAX_STRUCT] __attribute__((aligned(2)));
    static u8 reply[MAX_STRUCT] __attribute__((aligned(2)));
    if (size < 2 || size > 2 + MAX_VALUE)
        return STATUS_LENGTH;
    const struct broch_port *port = broch_port(*(const u16 *)IN, ENTRY);
    if (!port)
        return STATUS_NO_PORT;
    if (!broch_decode_arguments(port->argument, (const u8 *)IN + 2, size - 2, ask)) {
        static const char why[] = "not its arguments";
        broch_result(2, why, sizeof why - 1);
        return STATUS_WRONG_TYPE;
    }
    memset(reply, 0, sizeof reply);
    port->function(ask, reply);
    u16 written = broch_encode(port->result, reply, broch_value);
    if (!written)
        return STATUS_OUT_FULL;
    broch_result(0, broch_value, written);
    return STATUS_DONE;
}

static u16 tick(u16 size)
{
    if (size != 2)
        return STATUS_LENGTH;
    const struct broch_port *port = broch_port(*(const u16 *)IN, EVERY);
    if (!port)
        return STATUS_NO_PORT;
    port->function();
    return STATUS_DONE;
}

static u16 interrupt(u16 size)
{
    u16 status = STATUS_NO_PORT;
    if (size != 2)
        return STATUS_LENGTH;
    for (const struct broch_port *port = broch_table_start; port < broch_table_end; port++)
        if (port->kind == INTERRUPT && (u16)port->argument == *(const u16 *)IN) {
            port->function();
            status = STATUS_DONE;
        }
    return status;
}

static u16 start(void)
{
    broch_fresh = 0;
    if (!broch_drivers_are_right())
        return STATUS_DRIVER;
    broch_start();
    return STATUS_DONE;
}

u16 broch_function;

u16 broch_dispatch(u16 function, u16 size)
{
    u16 status = STATUS_DONE;
    broch_function = function;
    broch_out_size = 0;
    if (broch_fresh)
        status = start();
    if (function == FUNCTION_START)
        return status;
    if (function == FUNCTION_ATTEST) {
        broch_out_size = 0; /* what is given back is a nonce and a tag, and no records */
        return status ? status : broch_attest(size);
    }
    switch (function) {
    case FUNCTION_GRANT: return broch_grant(size);
    case FUNCTION_INPUT: return broch_receive(size);
    case FUNCTION_ENTRY: return enter(size);
    case FUNCTION_TICK: return tick(size);
    case FUNCTION_INTERRUPT: return interrupt(size);
    }
    return STATUS_NO_PORT;
}
