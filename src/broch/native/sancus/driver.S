/* A driver: a protected module that owns peripherals, NAME, from START up to END. It has no data and
 * no stack. It obeys whoever enters from the module's own text, and hands everybody else to the host.
 *
 * In:  r6 operation, r7 offset, r8 value.   Back, at the module's entry point: r6 0xffff, r8 result.
 */

#include "layout.h"

#define PASTE(a, b, c) a##b##c
#define SECTION_OF(name) PASTE(.broch.driver., name, )

        .section SECTION_OF(NAME),"ax",@progbits
        dint
        nop
        .word   0x1387                  /* get caller id */
        mov     r15, r14
        mov     #broch_entry, r15
        .word   0x1386                  /* get id */
        tst     r15
        jz      stranger
        cmp     r14, r15
        jne     stranger
        mov     r8, r9
        clr     r8
        cmp     #END - START, r7
        jc      back
        add     #START, r7
        bit     #DRIVER_WORD, r6
        jnz     word

        cmp     #DRIVER_WRITE, r6       /* which does not read: some registers change when read */
        jeq     1f
        mov.b   @r7, r8
        cmp     #DRIVER_READ, r6
        jeq     back
        cmp     #DRIVER_SET, r6
        jne     2f
        bis.b   r8, r9
        jmp     1f
2:      cmp     #DRIVER_CLEAR, r6
        jne     3f
        inv.b   r9
        and.b   r8, r9
        jmp     1f
3:      xor.b   r8, r9
1:      mov.b   r9, 0(r7)
        jmp     back

word:   bit     #1, r7
        jnz     back
        bit     #DRIVER_WRITE, r6
        jnz     4f
        mov     @r7, r8
        jmp     back
4:      mov     r9, 0(r7)

back:   mov     #DRIVER_RETURN, r6
        mov     #broch_entry, r4
        jmp     clear
stranger:
        mov     #EXIT, r4
        clr     r6
        clr     r8
clear:  clr     r5
        clr     r7
        clr     r9
        clr     r14
        clr     r15
        clr     r2
        br      r4
