/* Values as msgpack: written in one form, read in any that means the same (docs/sancus-abi.md). */

#include "runtime.h"

#define SCALAR(name, kind) const struct broch_type broch_type_##name = {kind, 0, NULL}
SCALAR(none, BROCH_NONE);
SCALAR(bool, BROCH_BOOL);
SCALAR(u8, BROCH_U8);
SCALAR(i8, BROCH_I8);
SCALAR(u16, BROCH_U16);
SCALAR(i16, BROCH_I16);
SCALAR(u32, BROCH_U32);
SCALAR(i32, BROCH_I32);

enum {
    FIXMAP = 0x80, FIXSTR = 0xa0, NIL = 0xc0, FALSE = 0xc2, TRUE = 0xc3, UINT8 = 0xcc, INT8 = 0xd0,
    STR8 = 0xd9, MAP16 = 0xde, NEGATIVE = 0xe0,
};

static u16 length(const char *text)
{
    u16 size = 0;
    while (text[size])
        size++;
    return size;
}


/* Writing: a cursor that stops at its end. */

static u8 *cursor, *end;

static void put(u8 byte)
{
    if (cursor < end)
        *cursor = byte;
    cursor++;
}

static void put_bytes(u8 first, const u8 *bytes, u8 size) /* most significant byte first */
{
    put(first);
    while (size--)
        put(bytes[size]);
}

/* Bytes of an integer's kind, as a power of two. */
static u8 log_size(u8 kind)
{
    return (kind - BROCH_U8) >> 1;
}

static void put_int(u8 kind, const u8 *value)
{
    u8 held = 1 << log_size(kind), log = 2;
    u8 sign = kind & 1 ? value[held - 1] & 0x80 : 0;
    u8 fill = sign ? 0xff : 0;
    u8 bytes[4] = {fill, fill, fill, fill};
    memcpy(bytes, value, held);
    /* halves that say no more than the sign does are left out */
    if (bytes[3] == fill && bytes[2] == fill && !(sign & ~bytes[1])) {
        log = 1;
        if (bytes[1] == fill && !(sign & ~bytes[0]))
            log = 0;
    }
    if (!log && (sign ? bytes[0] >= NEGATIVE : bytes[0] < FIXMAP))
        put(bytes[0]);
    else
        put_bytes((sign ? INT8 : UINT8) + log, bytes, 1 << log);
}

static void put_scalar(u8 kind, const u8 *value)
{
    if (kind == BROCH_NONE)
        put(NIL);
    else if (kind == BROCH_BOOL)
        put(FALSE + (*value & 1));
    else
        put_int(kind, value);
}

u16 broch_encode(const struct broch_type *type, const void *value, u8 *to)
{
    cursor = to;
    end = to + MAX_VALUE;
    if (type->kind != BROCH_STRUCT_TYPE)
        put_scalar(type->kind, value);
    else {
        if (type->count < 16)
            put(FIXMAP + type->count);
        else
            put_bytes(MAP16, (const u8[]){type->count, 0}, 2);
        for (u8 i = 0; i < type->count; i++) {
            const struct broch_field *field = &type->fields[i];
            u16 size = length(field->name);
            if (size < 32)
                put(FIXSTR + size);
            else
                put_bytes(STR8, (const u8[]){size}, 1);
            for (const char *name = field->name; *name; name++)
                put(*name);
            put_scalar(field->kind, (const u8 *)value + field->offset);
        }
    }
    return cursor <= end ? cursor - to : 0;
}


/* Reading: a cursor, and whether there was something wrong. */

static const u8 *source, *source_end;
static bool is_wrong;

static u8 take(void)
{
    if (source < source_end)
        return *source++;
    is_wrong = true;
    return 0;
}

/* An integer of any form, as eight bytes, least significant first; whether it is negative. */
static bool take_int(u8 *bytes)
{
    u8 first = take(), size = 1, sign = 0;
    if (first < FIXMAP || first >= NEGATIVE) {
        source--; /* it is the number itself */
        sign = first & 0x80;
    } else if (first >= UINT8 && first < INT8 + 4) {
        size = 1 << (first & 3);
        if (first >= INT8 && source < source_end)
            sign = *source & 0x80;
    } else
        is_wrong = true;
    memset(bytes, sign ? 0xff : 0, 8);
    while (size--)
        bytes[size] = take();
    return sign;
}

static void take_scalar(u8 kind, u8 *value)
{
    if (kind < BROCH_U8) {
        u8 byte = take();
        if (kind == BROCH_NONE)
            is_wrong |= byte != NIL;
        else {
            is_wrong |= (byte & 0xfe) != FALSE;
            *value = byte & 1;
        }
        return;
    }
    u8 bytes[8];
    bool is_negative = take_int(bytes), is_signed = kind & 1;
    u8 size = 1 << log_size(kind), fill = is_negative ? 0xff : 0;
    is_wrong |= is_negative && !is_signed;
    is_wrong |= is_signed && (bytes[size - 1] ^ fill) & 0x80;
    for (u8 i = size; i < 8; i++)
        is_wrong |= bytes[i] != fill;
    memcpy(value, bytes, size);
}

static u8 take_map(void)
{
    u8 first = take();
    if ((first & 0xf0) == FIXMAP)
        return first & 0x0f;
    is_wrong |= first != MAP16 || take();
    return take();
}

/* The field whose name comes next; NULL if there is none. */
static const struct broch_field *take_field(const struct broch_type *type)
{
    u8 first = take();
    u16 size = first - FIXSTR;
    if (first == STR8)
        size = take();
    else if (size >= 32)
        return NULL;
    if (size > (u16)(source_end - source))
        return NULL;
    const u8 *name = source;
    source += size;
    for (u8 i = 0; i < type->count; i++) {
        const struct broch_field *field = &type->fields[i];
        if (length(field->name) == size && !memcmp(field->name, name, size))
            return field;
    }
    return NULL;
}

static void take_struct(const struct broch_type *type, void *value)
{
    u16 seen = 0;
    if (take_map() != type->count)
        is_wrong = true;
    for (u8 i = 0; i < type->count && !is_wrong; i++) {
        const struct broch_field *field = take_field(type);
        u16 bit = field ? 1u << (field - type->fields) : 0;
        if (!bit || seen & bit) {
            is_wrong = true;
            return;
        }
        seen |= bit;
        take_scalar(field->kind, (u8 *)value + field->offset);
    }
}

bool broch_decode(const struct broch_type *type, const u8 *from, u16 size, void *value)
{
    source = from;
    source_end = from + size;
    is_wrong = size > MAX_VALUE;
    if (type->kind == BROCH_STRUCT_TYPE)
        take_struct(type, value);
    else
        take_scalar(type->kind, value);
    return !is_wrong && source == source_end;
}

bool broch_decode_arguments(const struct broch_type *type, const u8 *from, u16 size, void *value)
{
    if (type->kind != BROCH_NONE)
        return broch_decode(type, from, size, value);
    source = from;
    source_end = from + size;
    is_wrong = size > MAX_VALUE;
    return take_map() == 0 && !is_wrong && source == source_end;
}
