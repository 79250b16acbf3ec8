/* What the parts of the runtime share. */
#ifndef BROCH_RUNTIME_H
#define BROCH_RUNTIME_H

#include "broch/sancus.h"
#include "layout.h"

#define MAX_VALUE 256 /* bytes of msgpack */
#define MAX_STRUCT 64 /* bytes of sixteen fields */

/* codec.c. Both stay within their bounds whatever they are given.
 * How many bytes at `to`, at most MAX_VALUE; 0 if it does not fit. */
u16 broch_encode(const struct broch_type *type, const void *value, u8 *to);

/* Whether all of `from` is one value of this type; if so it is at `value`. An entry's arguments are
 * a map even where it takes none. */
bool broch_decode(const struct broch_type *type, const u8 *from, u16 size, void *value);
bool broch_decode_arguments(const struct broch_type *type, const u8 *from, u16 size, void *value);

/* entry.S */
struct broch_crypt {
    const void *key; /* NULL: the module's own */
    const void *data, *data_end;
    const void *body, *body_end;
    void *to;
    void *tag;
};

u16 broch_wrap(const struct broch_crypt *arguments);
u16 broch_unwrap(const struct broch_crypt *arguments);
u16 broch_verify(u16 entry, const u8 *tag);
u16 broch_drive(u16 entry, u16 operation, u16 offset, u16 value);
__attribute__((noreturn)) void broch_leave(u16 status);
extern u16 broch_fresh;

/* records.c: what goes to OUT. */
extern u16 broch_out_size;
u8 *broch_record(u16 kind, u16 size);
void broch_result(u16 status, const void *data, u16 size);

/* drivers.c */
bool broch_drivers_are_right(void);

/* connections.c */
extern u8 broch_value[MAX_VALUE + 2];
u16 broch_attest(u16 size);
u16 broch_grant(u16 size);
u16 broch_receive(u16 size);

/* dispatch.c */
extern u16 broch_function; /* that runs */
const struct broch_port *broch_port(u16 number, u16 kind);
u16 broch_port_number(const struct broch_port *port);

#endif
