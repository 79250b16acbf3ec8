/* What the compiler calls for arithmetic that an MSP430 has no instruction for, and for memory.
 *
 * Calling convention: MSP430 EABI (SLAA534, section 6.3). 16 bits: r12, r13 -> r12; 32 bits: r12:r13,
 * r14:r15 -> r12:r13; 64 bits: r8..r11, r12..r15 -> r12..r15, least significant word first. r4 to r10
 * are kept. Shifts of 32 bits: r12:r13 by r14.
 *
 * Multiplication and division take the same cycles whatever their operands are: no branch depends
 * on them but those that are padded (a jump takes 2 cycles, taken or not; nop, add, addc 1). Shifts
 * by a number of places that is not constant take time in that number, here and in compiled code.
 */

        .macro  function name
        .section .text.\name,"ax",@progbits
        .globl  \name
        .type   \name,@function
        .p2align 1
\name:
        .endm

        .macro  sign_mask value, mask           /* mask = 0xffff if value < 0, else 0 */
        mov     \value, \mask
        add     \mask, \mask
        subc    \mask, \mask
        inv     \mask
        .endm


/* Multiplication */

        function __mspabi_mpyi
        mov     r12, r14
        clr     r12
        mov     #16, r15
1:      clrc
        rrc     r13
        jnc     2f
        add     r14, r12
        jmp     3f
2:      nop
        jmp     3f
3:      add     r14, r14
        dec     r15
        jnz     1b
        ret

        function __mspabi_mpyl
        push    r10
        push    r9
        clr     r10
        clr     r11
        mov     #32, r9
1:      clrc
        rrc     r15
        rrc     r14
        jnc     2f
        add     r12, r10
        addc    r13, r11
        jmp     3f
2:      nop
        nop
        jmp     3f
3:      add     r12, r12
        addc    r13, r13
        dec     r9
        jnz     1b
        mov     r10, r12
        mov     r11, r13
        pop     r9
        pop     r10
        ret

        .macro  save_all
        push    r4
        push    r5
        push    r6
        push    r7
        push    r8
        push    r9
        push    r10
        .endm

        .macro  restore_all
        pop     r10
        pop     r9
        pop     r8
        pop     r7
        pop     r6
        pop     r5
        pop     r4
        .endm

        function __mspabi_mpyll
        save_all
        clr     r4
        clr     r5
        clr     r6
        clr     r7
        push    #64
1:      clrc
        rrc     r11
        rrc     r10
        rrc     r9
        rrc     r8
        jnc     2f
        add     r12, r4
        addc    r13, r5
        addc    r14, r6
        addc    r15, r7
        jmp     3f
2:      nop
        nop
        nop
        nop
        jmp     3f
3:      add     r12, r12
        addc    r13, r13
        addc    r14, r14
        addc    r15, r15
        dec     0(r1)
        jnz     1b
        incd    r1
        mov     r4, r12
        mov     r5, r13
        mov     r6, r14
        mov     r7, r15
        restore_all
        ret


/* Division: restoring, one bit of the quotient a round. The divisor is subtracted, and what of it was
 * too much is added again under a mask. Division by zero gives a quotient of ones. */

        .macro  borrow_mask mask        /* after sub: 0xffff if it borrowed, else 0 */
        subc    \mask, \mask
        .endm

/* r12 / r13 -> quotient r12, remainder r14; changes r11 and r15 */
        function broch_divide16
        push    r10
        push    r9
        clr     r14
        mov     #16, r15
1:      add     r12, r12
        addc    r14, r14
        borrow_mask r11                 /* 0 if the remainder has a 17th bit: larger than r13 */
        sub     r13, r14
        borrow_mask r10
        and     r11, r10
        mov     r13, r9
        and     r10, r9
        add     r9, r14
        inc     r10                     /* 0xffff -> 0, 0 -> 1 */
        bis     r10, r12
        dec     r15
        jnz     1b
        pop     r9
        pop     r10
        ret

        function __mspabi_divu
        br      #broch_divide16

        function __mspabi_remu
        call    #broch_divide16
        mov     r14, r12
        ret

        .macro  negate value, mask      /* value = -value where mask is 0xffff */
        xor     \mask, \value
        sub     \mask, \value
        .endm

        function __mspabi_divi
        push    r10
        sign_mask r12, r10
        sign_mask r13, r11
        negate  r12, r10
        negate  r13, r11
        xor     r11, r10
        call    #broch_divide16
        negate  r12, r10
        pop     r10
        ret

        function __mspabi_remi
        push    r10
        sign_mask r12, r10
        sign_mask r13, r11
        negate  r12, r10
        negate  r13, r11
        call    #broch_divide16
        mov     r14, r12
        negate  r12, r10
        pop     r10
        ret

/* r12:r13 / r14:r15 -> quotient r12:r13, remainder r10:r11; changes r6 to r9 */
        function broch_divide32
        clr     r10
        clr     r11
        mov     #32, r9
1:      add     r12, r12
        addc    r13, r13
        addc    r10, r10
        addc    r11, r11
        borrow_mask r8
        sub     r14, r10
        subc    r15, r11
        borrow_mask r7
        and     r7, r8
        mov     r14, r7
        mov     r15, r6
        and     r8, r7
        and     r8, r6
        add     r7, r10
        addc    r6, r11
        inc     r8
        bis     r8, r12
        dec     r9
        jnz     1b
        ret

        .macro  negate32 low, high, mask
        xor     \mask, \low
        xor     \mask, \high
        sub     \mask, \low
        subc    \mask, \high
        .endm

        function __mspabi_divul
        save_all
        call    #broch_divide32
        restore_all
        ret

        function __mspabi_remul
        save_all
        call    #broch_divide32
        mov     r10, r12
        mov     r11, r13
        restore_all
        ret

        function __mspabi_divli
        save_all
        sign_mask r13, r4
        sign_mask r15, r5
        negate32 r12, r13, r4
        negate32 r14, r15, r5
        xor     r5, r4
        call    #broch_divide32
        negate32 r12, r13, r4
        restore_all
        ret

        function __mspabi_remli
        save_all
        sign_mask r13, r4
        sign_mask r15, r5
        negate32 r12, r13, r4
        negate32 r14, r15, r5
        call    #broch_divide32
        mov     r10, r12
        mov     r11, r13
        negate32 r12, r13, r4
        restore_all
        ret

/* r8..r11 / r12..r15 -> quotient r8..r11, remainder r4..r7. On the stack, from the top: four words of
 * the masked divisor, the mask, another, the rounds. */
        function broch_divide64
        push    #64
        sub     #12, r1
        clr     r4
        clr     r5
        clr     r6
        clr     r7
1:      add     r8, r8
        addc    r9, r9
        addc    r10, r10
        addc    r11, r11
        addc    r4, r4
        addc    r5, r5
        addc    r6, r6
        addc    r7, r7
        subc    8(r1), 8(r1)            /* the 65th bit */
        sub     r12, r4
        subc    r13, r5
        subc    r14, r6
        subc    r15, r7
        subc    10(r1), 10(r1)
        and     10(r1), 8(r1)
        mov     r12, 0(r1)
        mov     r13, 2(r1)
        mov     r14, 4(r1)
        mov     r15, 6(r1)
        and     8(r1), 0(r1)
        and     8(r1), 2(r1)
        and     8(r1), 4(r1)
        and     8(r1), 6(r1)
        add     0(r1), r4
        addc    2(r1), r5
        addc    4(r1), r6
        addc    6(r1), r7
        inc     8(r1)
        bis     8(r1), r8
        dec     12(r1)
        jnz     1b
        add     #14, r1
        ret

        .macro  negate64 a, b, c, d, mask
        xor     \mask, \a
        xor     \mask, \b
        xor     \mask, \c
        xor     \mask, \d
        sub     \mask, \a
        subc    \mask, \b
        subc    \mask, \c
        subc    \mask, \d
        .endm

        .macro  quotient64
        mov     r8, r12
        mov     r9, r13
        mov     r10, r14
        mov     r11, r15
        .endm

        .macro  remainder64
        mov     r4, r12
        mov     r5, r13
        mov     r6, r14
        mov     r7, r15
        .endm

        .macro  magnitudes64            /* r4, r5: masks of the signs of divisor and dividend */
        sign_mask r15, r4
        negate64 r12, r13, r14, r15, r4
        sign_mask r11, r5
        negate64 r8, r9, r10, r11, r5
        .endm

        function __mspabi_divull
        save_all
        call    #broch_divide64
        quotient64
        restore_all
        ret

        function __mspabi_remull
        save_all
        call    #broch_divide64
        remainder64
        restore_all
        ret

        function __mspabi_divlli
        save_all
        magnitudes64
        xor     r4, r5
        push    r5
        call    #broch_divide64
        pop     r5
        negate64 r8, r9, r10, r11, r5
        quotient64
        restore_all
        ret

        function __mspabi_remlli
        save_all
        magnitudes64
        push    r5
        call    #broch_divide64
        pop     r8
        negate64 r4, r5, r6, r7, r8
        remainder64
        restore_all
        ret


/* Shifts of 32 bits */

        function __mspabi_slll
        and     #31, r14
        jz      2f
1:      add     r12, r12
        addc    r13, r13
        dec     r14
        jnz     1b
2:      ret

        function __mspabi_srll
        and     #31, r14
        jz      2f
1:      clrc
        rrc     r13
        rrc     r12
        dec     r14
        jnz     1b
2:      ret

        function __mspabi_sral
        and     #31, r14
        jz      2f
1:      rra     r13
        rrc     r12
        dec     r14
        jnz     1b
2:      ret


/* Memory: r12 to, r13 from (or value), r14 bytes -> r12 */

        function memcpy
        mov     r12, r15
        tst     r14
        jz      2f
1:      mov.b   @r13+, r11
        mov.b   r11, 0(r15)
        inc     r15
        dec     r14
        jnz     1b
2:      ret

        function memmove
        cmp     r12, r13
        jnc     1f
        br      #memcpy                 /* from >= to: forwards */
1:      mov     r12, r15
        add     r14, r15
        add     r14, r13
        tst     r14
        jz      2f
1:      dec     r13
        dec     r15
        mov.b   @r13, 0(r15)
        dec     r14
        jnz     1b
2:      ret

        function memset
        mov     r12, r15
        tst     r14
        jz      2f
1:      mov.b   r13, 0(r15)
        inc     r15
        dec     r14
        jnz     1b
2:      ret

        function memcmp
        clr     r15
        tst     r14
        jz      2f
1:      mov.b   @r12+, r15
        mov.b   @r13+, r11
        sub     r11, r15
        jnz     2f
        dec     r14
        jnz     1b
2:      mov     r15, r12
        ret
