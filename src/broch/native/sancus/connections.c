/* Who may say what to this module: attestation, grants of keys, events in and out.
 *
 * IN is the host's, but interrupts are off and nothing else runs on the microcontroller, so what is
 * there does not change during a call, and is used in place.
 */

#include "runtime.h"

#define CONNECTIONS 16
#define NONCE 16
#define TAG 16

enum { INPUT = 1, OUTPUT = 2 }; /* roles; the numbers of the ports' kinds, too */

struct connection {
    u8 role; /* 0: free */
    u8 port;
    u8 id[4];
    u8 epoch[4];
    u8 counter[8]; /* of the last message */
    u8 key[16];
};

static struct connection connections[CONNECTIONS];
static u8 nonce[NONCE];
static u8 serial[4]; /* of the last grant */
static bool is_attested;
u8 broch_value[MAX_VALUE + 2] __attribute__((aligned(2)));

#define from_in(offset) ((const u8 *)(IN + (offset)))

static u8 *copy(u8 *to, const void *from, u16 size)
{
    memcpy(to, from, size);
    return to + size;
}

/* A tag under the module's key over `data`. */
static void mac(const u8 *data, const u8 *end, u8 *tag)
{
    struct broch_crypt arguments = {NULL, data, end, end, end, tag, tag};
    if (!broch_wrap(&arguments))
        broch_leave(STATUS_BROKEN);
}

u16 broch_random(void)
{
    return *(volatile const u16 *)RANDOM;
}

u16 broch_attest(u16 size)
{
    if (size != 32)
        return STATUS_LENGTH;
    is_attested = false;
    memset(connections, 0, sizeof connections);
    memset(serial, 0, sizeof serial);
    if (!broch_drivers_are_right())
        return STATUS_DRIVER;
    for (u8 i = 0; i < NONCE; i += 2)
        *(u16 *)&nonce[i] = broch_random();
    u8 said[2 + 32 + NONCE] __attribute__((aligned(2))) = {1, 0};
    copy(copy(said + 2, from_in(0), 32), nonce, NONCE);
    copy((u8 *)OUT, nonce, NONCE);
    mac(said, said + sizeof said, (u8 *)OUT + NONCE);
    broch_out_size = NONCE + TAG;
    is_attested = true;
    return STATUS_DONE;
}


static struct connection *find(u8 role, const u8 *id)
{
    for (u8 i = 0; i < CONNECTIONS; i++)
        if (connections[i].role == role && !memcmp(connections[i].id, id, 4))
            return &connections[i];
    return NULL;
}

static struct connection *find_free(void)
{
    for (u8 i = 0; i < CONNECTIONS; i++)
        if (!connections[i].role)
            return &connections[i];
    return NULL;
}

/* A grant, as it stands in IN: associated data, the key's cipher, a tag. */
enum { ROLE = 1, PORT, ZERO, ID, EPOCH = 8, SERIAL = 12, GRANT_NONCE = 16, CIPHER = 32, GRANT_TAG = 48 };

u16 broch_grant(u16 size)
{
    const u8 *grant = from_in(0);
    if (size != GRANT_TAG + TAG)
        return STATUS_LENGTH;
    if (!is_attested || memcmp(grant + GRANT_NONCE, nonce, NONCE))
        return STATUS_NOT_ATTESTED;
    struct broch_crypt arguments = {NULL, grant, grant + CIPHER, grant + CIPHER, grant + GRANT_TAG,
                                    broch_value, (void *)(grant + GRANT_TAG)};
    if (grant[0] != 2 || grant[ZERO] || !broch_unwrap(&arguments))
        return STATUS_NOT_AUTHENTIC;
    if (memcmp(grant + SERIAL, serial, 4) <= 0)
        return STATUS_REPLAYED;
    u8 role = grant[ROLE];
    if ((role != INPUT && role != OUTPUT) || !broch_port(grant[PORT], role))
        return STATUS_NO_PORT;
    struct connection *end = find(role, grant + ID);
    if (end && memcmp(grant + EPOCH, end->epoch, 4) <= 0)
        return STATUS_REPLAYED;
    if (!end)
        end = find_free();
    if (!end)
        return STATUS_NO_ROOM;
    end->role = role;
    end->port = grant[PORT];
    copy(end->id, grant + ID, 4);
    copy(end->epoch, grant + EPOCH, 4);
    memset(end->counter, 0, 8);
    copy(end->key, broch_value, 16);
    copy(serial, grant + SERIAL, 4);
    u8 said[2 + 4 + NONCE] __attribute__((aligned(2))) = {3, 0};
    copy(copy(said + 2, serial, 4), nonce, NONCE);
    mac(said, said + sizeof said, (u8 *)OUT);
    broch_out_size = TAG;
    return STATUS_DONE;
}


/* The associated data of an event: epoch, counter, connection, and the padding of it. */
static void describe(const struct connection *end, const u8 *counter, u8 *to)
{
    to = copy(to, end->epoch, 4);
    to = copy(to, counter, 8);
    to = copy(to, end->id, 4);
    to[0] = 0;
    to[1] = 0x80;
}

/* Tell the host of messages that never came: those between the last one and this. */
static void tell_gap(const struct connection *end, const u8 *counter)
{
    u8 missing[8];
    u8 borrow = 1; /* the message itself is here */
    for (u8 i = 8; i--;) {
        u16 difference = (u16)counter[i] - end->counter[i] - borrow;
        missing[i] = difference;
        borrow = difference >> 15;
    }
    u8 many = missing[0] | missing[1] | missing[2] | missing[3];
    if (!(many | missing[4] | missing[5] | missing[6] | missing[7]))
        return;
    if (many)
        memset(missing + 4, 0xff, 4);
    copy(copy(broch_record(4, 8), end->id, 4), missing + 4, 4);
}

/* An event, as it stands in IN. */
enum { EVENT_EPOCH = 4, EVENT_COUNTER = 8, EVENT_CIPHER = 16 };

u16 broch_receive(u16 size)
{
    static u8 value[MAX_STRUCT] __attribute__((aligned(2)));
    u16 body = size - EVENT_CIPHER - TAG;
    if (size < EVENT_CIPHER + 2 + TAG || body > MAX_VALUE + 2 || body & 1)
        return STATUS_LENGTH;
    struct connection *end = find(INPUT, from_in(0));
    if (!end || memcmp(from_in(EVENT_EPOCH), end->epoch, 4))
        return STATUS_NO_CONNECTION;
    const u8 *counter = from_in(EVENT_COUNTER);
    if (counter[0] & 0x80 || memcmp(counter, end->counter, 8) <= 0)
        return STATUS_REPLAYED;
    u8 said[18] __attribute__((aligned(2)));
    describe(end, counter, said);
    const u8 *cipher = from_in(EVENT_CIPHER);
    struct broch_crypt arguments = {end->key, said, said + sizeof said, cipher, cipher + body,
                                    broch_value, (void *)(cipher + body)};
    if (!broch_unwrap(&arguments))
        return STATUS_NOT_AUTHENTIC;
    if (broch_value[body - 1] == 0x80)
        body -= 1;
    else if (!broch_value[body - 1] && broch_value[body - 2] == 0x80)
        body -= 2;
    else
        return STATUS_NOT_AUTHENTIC;
    tell_gap(end, counter);
    copy(end->counter, counter, 8);
    const struct broch_port *port = broch_port(end->port, INPUT);
    if (!broch_decode(port->argument, broch_value, body, value))
        return STATUS_WRONG_TYPE;
    port->function(value);
    return STATUS_DONE;
}


static void send(struct connection *end, u16 size)
{
    u8 said[18] __attribute__((aligned(2)));
    u8 *record = broch_record(1, 16 + size + TAG);
    for (u8 i = 8; i-- && !++end->counter[i];)
        ;
    describe(end, end->counter, said);
    u8 *cipher = copy(copy(copy(record, end->id, 4), end->epoch, 4), end->counter, 8);
    struct broch_crypt arguments = {end->key, said, said + sizeof said, broch_value,
                                    broch_value + size, cipher, cipher + size};
    if (!broch_wrap(&arguments))
        broch_leave(STATUS_BROKEN);
}

void broch_emit(const struct broch_port *port, const void *value)
{
    u8 number = broch_port_number(port);
    u16 size = broch_encode(port->argument, value, broch_value);
    if (!size)
        broch_leave(STATUS_OUT_FULL);
    broch_value[size++] = 0x80;
    if (size & 1)
        broch_value[size++] = 0;
    for (u8 i = 0; i < CONNECTIONS; i++)
        if (connections[i].role == OUTPUT && connections[i].port == number)
            send(&connections[i], size);
}
