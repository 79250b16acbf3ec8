/* The one way into a module, and the one way out (docs/sancus-abi.md).
 *
 * Nothing is believed of what is found on the way in. Whoever loads a module chooses what its secret
 * section holds when protection begins, so before any of it is used a cookie is checked: a MAC under
 * the module's key, which only code of this module can have put there, after it had zeroed everything
 * (function 0). Until then no stack is used, and no address that was found in memory.
 *
 * On the way out all registers are cleared, so that the host sees none of the module's data.
 */

#include "layout.h"

        .macro  function name
        .globl  \name
        .type   \name,@function
        .p2align 1
\name:
        .endm

        .macro  get_id                  /* r15 address -> r15 id of the module whose text is there */
        .word   0x1386
        .endm

        .macro  get_caller_id           /* -> r15 id of who ran before */
        .word   0x1387
        .endm

/* A MAC under the module's key over constant data goes to address \to; r15 is 0 if it does not.
 * Changes r9 to r15. */
        .macro  make_cookie to
        clr     r9
        mov     #cookie_data, r10
        mov     #cookie_data + 2, r11
        mov     r11, r12
        mov     r11, r13
        mov     \to, r14                /* an empty body: nothing goes there but the tag */
        mov     r14, r15
        .word   0x1384
        .endm

        .section .broch.entry,"ax",@progbits
        function broch_entry
        dint
        nop
        cmp     #DRIVER_RETURN, r6
        jeq     from_driver
        tst     &broch_busy
        jne     broken
        mov     r14, r7
        tst     r6
        jz      begin
        mov     #1f, r5
        br      #check_cookie
1:      tst     r12
        jz      enter
        cmp     #FUNCTION_ATTEST, r6    /* of a module that was not started: start it */
        jne     not_started

begin:                                  /* zero the whole secret section, then start */
        mov     #broch_secret_start, r15
1:      clr     0(r15)
        incd    r15
        cmp     #broch_secret_end, r15
        jne     1b
        mov     #broch_data_start, r15  /* variables that begin with a value */
        mov     #broch_init_start, r13
2:      cmp     #broch_data_end, r15
        jeq     3f
        mov     @r13+, r12
        mov     r12, 0(r15)
        incd    r15
        jmp     2b
3:      make_cookie #broch_cookie
        tst     r15
        jz      not_started             /* it runs unprotected, and has no key */
        mov     #1, &broch_fresh

enter:  mov     #1, &broch_busy
        mov     #broch_secret_end, r1
        mov     r6, r12
        mov     r7, r13
        call    #broch_dispatch

        function broch_leave            /* r12 status */
        tst     &broch_stack_end        /* still zero, or the stack ran into the variables */
        jne     broken
        mov     r12, r15
        mov     &broch_out_size, r14
        clr     &broch_busy
        jmp     out

not_started:
        mov     #STATUS_NOT_ATTESTED, r15
        jmp     out_of_nothing
        .globl  broch_broken
broch_broken:
broken: mov     #STATUS_BROKEN, r15
out_of_nothing:
        clr     r14
out:    clr     r4
        clr     r5
        clr     r6
        clr     r7
        clr     r8
        clr     r9
        clr     r10
        clr     r11
        clr     r12
        clr     r13
        clr     r1
        clr     r2
        br      #EXIT

check_cookie:                           /* r12 is 0 if the cookie is right. Link: r5. Keeps r6 to r8. */
        make_cookie #broch_scratch
        mov     #1, r12
        tst     r15
        jz      2f
        clr     r12
        clr     r15
1:      mov     broch_scratch(r15), r13
        clr     broch_scratch(r15)
        xor     broch_cookie(r15), r13
        bis     r13, r12
        incd    r15
        cmp     #16, r15
        jne     1b
2:      br      r5

        .p2align 1
cookie_data:
        .byte   0x04, 0x00

from_driver:                            /* with what it was asked for in r8; or somebody says so */
        cmp     #WAITING, &broch_busy
        jne     nobody
        get_caller_id
        mov     r15, r13
        mov     &broch_called, r15
        get_id
        tst     r15
        jz      nobody
        cmp     r15, r13
        jne     nobody
        mov     #1f, r5
        br      #check_cookie
1:      tst     r12
        jnz     nobody
        mov     #1, &broch_busy
        mov     &broch_sp, r1
        mov     r8, r12
        pop     r10
        pop     r9
        pop     r8
        pop     r7
        pop     r6
        pop     r5
        pop     r4
        ret
nobody: clr     r15
        jmp     out_of_nothing


/* The compiler calls this at the beginning of each of the author's functions: a stack that would run
 * into the variables ends the module, before it does. Keeps all registers. */
        .section .text.__cyg_profile_func_enter_bare,"ax",@progbits
        function __cyg_profile_func_enter_bare
        cmp     #broch_stack_end + STACK_RESERVE, r1
        jc      1f
        br      #broch_broken
1:      ret


/* u16 broch_drive(u16 entry, u16 operation, u16 offset, u16 value): go to a driver, and wait for it.
 * It sees its arguments, and nothing else. */
        .section .text.broch_drive,"ax",@progbits
        function broch_drive
        push    r4
        push    r5
        push    r6
        push    r7
        push    r8
        push    r9
        push    r10
        mov     r1, &broch_sp
        mov     r12, &broch_called
        mov     r13, r6
        mov     r14, r7
        mov     r15, r8
        clr     r4
        clr     r5
        clr     r9
        clr     r10
        clr     r11
        clr     r12
        clr     r13
        clr     r14
        clr     r15
        mov     #WAITING, &broch_busy
        clr     r1
        clr     r2
        br      &broch_called


/* u16 broch_wrap(const struct broch_crypt *), u16 broch_unwrap(same): not 0 if done. */
        .macro  crypt opcode
        push    r10
        push    r9
        mov     0(r12), r9
        mov     2(r12), r10
        mov     4(r12), r11
        mov     8(r12), r13
        mov     10(r12), r14
        mov     12(r12), r15
        mov     6(r12), r12
        .word   \opcode
        mov     r15, r12
        pop     r9
        pop     r10
        ret
        .endm

        .section .text.broch_wrap,"ax",@progbits
        function broch_wrap
        crypt   0x1384

        .section .text.broch_unwrap,"ax",@progbits
        function broch_unwrap
        crypt   0x1385


/* u16 broch_verify(u16 entry, const u8 *tag): not 0 if the module there has this identity. */
        .section .text.broch_verify,"ax",@progbits
        function broch_verify
        mov     r12, r14
        mov     r13, r15
        .word   0x1382
        mov     r15, r12
        ret


/* What is needed before there is a stack. */
        .section .bss.broch_entry,"aw",@nobits
        .p2align 1
        .globl  broch_busy, broch_fresh
broch_cookie:   .zero 16
broch_scratch:  .zero 16
broch_busy:     .zero 2
broch_fresh:    .zero 2                 /* not 0: started just now, and nothing was done yet */
broch_sp:       .zero 2                 /* while a driver works: where to go on */
broch_called:   .zero 2                 /* and which one it is */
