/* Broch for Sancus: modules in C on a 16-bit microcontroller. Freestanding C17; no libc, no floats.
 *
 *     #include "broch.h"
 *
 *     BROCH_DRIVER(leds, 0x28, 0x30);              // only this module reaches port 2
 *     BROCH_STRUCT(Light, (bool, on));
 *     BROCH_OUTPUT(changed, Light);
 *
 *     BROCH_INPUT(set, Light, light)               // a connection's event: light is const Light *
 *     {
 *         if (light->on)
 *             broch_set(leds, BROCH_P2OUT, 1);
 *         else
 *             broch_clear(leds, BROCH_P2OUT, 1);
 *         changed(light);                          // to every connection of this output
 *     }
 *
 * All code and constants are measured; all variables are in the module's secret section, and begin
 * as zeros or as they are initialised. One call runs at a time, with interrupts off. What the module
 * looks like from outside is in docs/sancus-abi.md.
 *
 * Types that cross the boundary: none, bool, u8, i8, u16, i16, u32, i32, and structs of up to 16 of
 * these (but none). Names of ports and fields: a-z, then a-z, 0-9 and _.
 */
#ifndef BROCH_SANCUS_H
#define BROCH_SANCUS_H

#include <stddef.h>
#include <stdint.h>

#include <stdbool.h>
#undef bool /* so that it is spelled as written where a type's name is made text */
typedef _Bool bool;

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int16_t i16;
typedef uint32_t u32;
typedef int32_t i32;
typedef struct {
} none;


/* What a module declares, at the top level of a file. */

/* A type of what crosses: BROCH_STRUCT(Valve, (bool, open), (u16, litres)); makes the struct Valve. */
#define BROCH_STRUCT(name, ...)                                                                    \
    typedef struct {                                                                               \
        BROCH_EACH(BROCH_MEMBER, __VA_ARGS__)                                                      \
    } name;                                                                                        \
    enum { BROCH_COUNT_##name = 0 BROCH_EACH(BROCH_ONE, __VA_ARGS__) };                            \
    _Static_assert(BROCH_COUNT_##name <= 16, "a struct that crosses has at most 16 fields");       \
    typedef name broch_this_##name;                                                                \
    __attribute__((used)) static const struct broch_field                                          \
        broch_fields_##name[BROCH_COUNT_##name] = {BROCH_FIELDS(name, __VA_ARGS__)};               \
    __attribute__((used)) static const struct broch_type broch_type_##name = {                     \
        BROCH_STRUCT_TYPE, BROCH_COUNT_##name, broch_fields_##name};                               \
    __asm__(".macro broch_text_" #name "\n.ascii \"" #name "{\"\n" BROCH_TEXTS(__VA_ARGS__)        \
            ".ascii \"}\"\n.endm")

/* An output: a function void name(const Type *value), which sends to every connection there is. */
#define BROCH_OUTPUT(name, type)                                                                   \
    BROCH_PORT(name, "output", 2, "broch_text_" #type, "broch_type_" #type, "0", "0");             \
    static inline void name(const type *value)                                                     \
    {                                                                                              \
        broch_emit(&broch_port_##name, value);                                                     \
    }                                                                                              \
    _Static_assert(1, "")

/* An input: its function's body follows. value is a const type *. */
#define BROCH_INPUT(name, type, value)                                                             \
    BROCH_PORT(name, "input", 1, "broch_text_" #type, "broch_type_" #type, "0", "broch_do_" #name);\
    __attribute__((used)) void broch_do_##name(const type *value)

/* An entry, which anyone may call, the untrusted host included: its function's body follows. ask is
 * a const in *, reply is an out * to be filled. in is none or a struct. */
#define BROCH_ENTRY(name, in, ask, out, reply)                                                     \
    BROCH_PORT(name, "entry", 3,                                                                   \
               "broch_text_" #in "\n.ascii \" -> \"\nbroch_text_" #out, "broch_type_" #in,         \
               "broch_type_" #out, "broch_do_" #name);                                             \
    __attribute__((used)) void broch_do_##name(const in *ask, out *reply)

/* A function that the host calls again and again; its clock is untrusted. The body follows. */
#define BROCH_EVERY(name, milliseconds)                                                            \
    BROCH_PORT(name, "every", 4, ".ascii \"" #milliseconds "\"", "0", "0", "broch_do_" #name);     \
    __attribute__((used)) void broch_do_##name(void)

/* A function that the host calls when a peripheral asks for an interrupt, or when it likes. The
 * vector is 2 (port 1), 3 (port 2), 6, 7 (UART sent, received), 8 or 9 (timer). The body follows. */
#define BROCH_INTERRUPT(name, vector)                                                              \
    BROCH_PORT(name, "interrupt", 5, ".ascii \"" #vector "\"", #vector, "0", "broch_do_" #name);   \
    __attribute__((used)) void broch_do_##name(void)

/* What is done once, before anything else: set up peripherals. The body follows. */
#define BROCH_START void broch_start(void)

/* A driver: a protected module of its own that owns the peripherals from start up to end (even), so
 * that nothing but it reaches them, and that obeys this module only. At most three. */
#define BROCH_DRIVER(name, start, end)                                                             \
    __asm__(".pushsection .broch.driver_names,\"\",@progbits\n"                                     \
            ".ascii \"" #name " " #start " " #end "\"\n.byte 0\n.popsection\n"                     \
            ".pushsection .broch.tags,\"a\",@progbits\n.p2align 1\n.globl __sm_" #name "_tag\n"     \
            "__sm_" #name "_tag:\n.zero 16\n.popsection\n"                                         \
            ".pushsection .broch.drivers,\"a\",@progbits\n.p2align 1\n.globl broch_driver_" #name   \
            "\nbroch_driver_" #name ":\n.word __sm_" #name "_public_start, __sm_" #name "_tag, "   \
            "(" #start "), (" #end ")\n.popsection");                                              \
    extern const struct broch_driver broch_driver_##name;                                          \
    static const struct broch_driver *const name = &broch_driver_##name


/* What a module calls. */

struct broch_driver;

/* A byte of a peripheral, by the driver that owns it; an address that it does not own ends the call
 * with status 8. All but write return what was there before; write returns 0. */
u8 broch_read(const struct broch_driver *driver, u16 address);
u8 broch_write(const struct broch_driver *driver, u16 address, u8 value);
u8 broch_set(const struct broch_driver *driver, u16 address, u8 bits);
u8 broch_clear(const struct broch_driver *driver, u16 address, u8 bits);
u8 broch_toggle(const struct broch_driver *driver, u16 address, u8 bits);

/* The same for a word; the address is even. */
u16 broch_read_word(const struct broch_driver *driver, u16 address);
u16 broch_write_word(const struct broch_driver *driver, u16 address, u16 value);

/* A line for whoever watches the untrusted host. No secrets. */
void broch_print(const char *text);

/* End this call: what was given is not accepted. An entry's caller gets the reason; of other calls
 * the host does. */
__attribute__((noreturn)) void broch_refuse(const char *why);

/* 16 random bits of the microcontroller. */
u16 broch_random(void);

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size); /* its time tells where they differ */

/* Registers of the digital ports. */
enum {
    BROCH_P1IN = 0x20, BROCH_P1OUT, BROCH_P1DIR, BROCH_P1IFG, BROCH_P1IES, BROCH_P1IE, BROCH_P1SEL,
    BROCH_P2IN = 0x28, BROCH_P2OUT, BROCH_P2DIR, BROCH_P2IFG, BROCH_P2IES, BROCH_P2IE, BROCH_P2SEL,
    BROCH_P3IN = 0x18, BROCH_P3OUT, BROCH_P3DIR, BROCH_P3SEL,
    BROCH_P4IN = 0x1c, BROCH_P4OUT, BROCH_P4DIR, BROCH_P4SEL,
    BROCH_P5IN = 0x30, BROCH_P5OUT, BROCH_P5DIR, BROCH_P5SEL,
    BROCH_P6IN = 0x34, BROCH_P6OUT, BROCH_P6DIR, BROCH_P6SEL,
};


/* How the declarations above are made. Nothing here is for authors. */

enum broch_kind {
    BROCH_NONE, BROCH_BOOL, BROCH_U8, BROCH_I8, BROCH_U16, BROCH_I16, BROCH_U32, BROCH_I32,
    BROCH_STRUCT_TYPE,
};

struct broch_field {
    const char *name;
    u8 kind;
    u8 offset;
};

struct broch_type {
    u8 kind;
    u8 count; /* of a struct's fields */
    const struct broch_field *fields;
};

struct broch_port {
    u16 kind; /* 1 input, 2 output, 3 entry, 4 every, 5 interrupt */
    const struct broch_type *argument; /* of an interrupt: its vector */
    const struct broch_type *result;
    void (*function)();
};

void broch_emit(const struct broch_port *port, const void *value);

extern const struct broch_type broch_type_none, broch_type_bool, broch_type_u8, broch_type_i8,
    broch_type_u16, broch_type_i16, broch_type_u32, broch_type_i32;

/* The table's text, and the descriptor beside it: in the same order, for both are written here. */
#define BROCH_PORT(name, kind, number, text, argument, result, function)                           \
    __asm__(".pushsection .broch.ports,\"a\",@progbits\n.ascii \"" kind " " #name " \"\n" text      \
            "\n.byte 0\n.popsection\n"                                                             \
            ".pushsection .broch.table,\"a\",@progbits\n.p2align 1\n.globl broch_port_" #name       \
            "\nbroch_port_" #name ":\n.word " #number ", " argument ", " result ", " function      \
            "\n.popsection");                                                                      \
    extern const struct broch_port broch_port_##name

#define BROCH_SCALAR_bool BROCH_BOOL
#define BROCH_SCALAR_u8 BROCH_U8
#define BROCH_SCALAR_i8 BROCH_I8
#define BROCH_SCALAR_u16 BROCH_U16
#define BROCH_SCALAR_i16 BROCH_I16
#define BROCH_SCALAR_u32 BROCH_U32
#define BROCH_SCALAR_i32 BROCH_I32

#define BROCH_MEMBER(type, field) type field;
#define BROCH_ONE(type, field) +1
#define BROCH_TEXT(type, field) ".ascii \"" #field ":" #type "\"\n"
#define BROCH_NEXT_TEXT(type, field) ".ascii \"," #field ":" #type "\"\n"
#define BROCH_TEXTS(first, ...) BROCH_TEXT first BROCH_EACH(BROCH_NEXT_TEXT, __VA_ARGS__)

#define BROCH_FIELD(owner, type, field)                                                            \
    {#field, BROCH_SCALAR_##type, offsetof(broch_this_##owner, field)},
#define BROCH_UNPACK(owner, pair) BROCH_FIELD_OF(owner, BROCH_STRIP pair)
#define BROCH_FIELD_OF(...) BROCH_FIELD(__VA_ARGS__)
#define BROCH_STRIP(...) __VA_ARGS__
#define BROCH_FIELDS(owner, ...) __VA_OPT__(BROCH_EXPAND(BROCH_FIELDS_(owner, __VA_ARGS__)))
#define BROCH_FIELDS_(owner, pair, ...)                                                            \
    BROCH_UNPACK(owner, pair) __VA_OPT__(BROCH_FIELDS_AGAIN BROCH_NOTHING (owner, __VA_ARGS__))
#define BROCH_FIELDS_AGAIN() BROCH_FIELDS_

/* BROCH_EACH(M, (a, b), (c, d)) is M(a, b) M(c, d) */
#define BROCH_EACH(macro, ...) __VA_OPT__(BROCH_EXPAND(BROCH_EACH_(macro, __VA_ARGS__)))
#define BROCH_EACH_(macro, pair, ...)                                                              \
    macro pair __VA_OPT__(BROCH_EACH_AGAIN BROCH_NOTHING (macro, __VA_ARGS__))
#define BROCH_EACH_AGAIN() BROCH_EACH_
#define BROCH_NOTHING ()
#define BROCH_EXPAND(...) BROCH_EXPAND2(BROCH_EXPAND2(BROCH_EXPAND2(BROCH_EXPAND2(__VA_ARGS__))))
#define BROCH_EXPAND2(...) BROCH_EXPAND1(BROCH_EXPAND1(BROCH_EXPAND1(__VA_ARGS__)))
#define BROCH_EXPAND1(...) BROCH_EXPAND0(BROCH_EXPAND0(__VA_ARGS__))
#define BROCH_EXPAND0(...) __VA_ARGS__

__asm__(".macro broch_text_none\n.ascii \"none\"\n.endm\n"
        ".macro broch_text_bool\n.ascii \"bool\"\n.endm\n"
        ".macro broch_text_u8\n.ascii \"u8\"\n.endm\n"
        ".macro broch_text_i8\n.ascii \"i8\"\n.endm\n"
        ".macro broch_text_u16\n.ascii \"u16\"\n.endm\n"
        ".macro broch_text_i16\n.ascii \"i16\"\n.endm\n"
        ".macro broch_text_u32\n.ascii \"u32\"\n.endm\n"
        ".macro broch_text_i32\n.ascii \"i32\"\n.endm");

#endif
