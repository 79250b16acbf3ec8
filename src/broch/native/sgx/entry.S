/* The way into the enclave and out of it: the Fortanix EDP ABI, and nothing else.
 *
 * The host chooses every register. On the way in, the state that compiled code relies on is made
 * known (extended state, flags, stack); on the way out, nothing of ours is left in a register.
 *
 * FS and GS both point to the thread's page, whose first two words the converter fills in.
 */

    /* Of the thread's page; struct thread in internal.h is the same. */
    .set TOP, 0x00          /* top of the stack, and address of this page, which is above it; an
                             * offset from the enclave's base until first entered */
    .set FLAGS, 0x08        /* bit 0: not the main thread */
    .set WAITING_RSP, 0x10  /* our stack during a usercall; 0: not in one */
    .set ENTERED, 0x18      /* 1: TOP is an address, and CANARY is set */
    .set DEBUG_BUFFER, 0x20
    .set CANARY, 0x28       /* where -fstack-protector looks, by FS */
    .set USER_RSP, 0x30
    .set USER_RBP, 0x38
    .set USER_R12, 0x40
    .set USER_R13, 0x48
    .set USER_R14, 0x50
    .set USER_R15, 0x58
    .set USER_RETURN, 0x60
    .set USER_MXCSR, 0x68
    .set USER_FCW, 0x6c

    .set EEXIT, 4
    .set RDRAND_TRIES, 16
    .set USERCALL_EXIT, 10
    .set FLAGS_CLEAR, 2     /* bit 1 is always set; DF and AC are not */


    .section .note.x86_64-fortanix-unknown-sgx, "", @note
    .balign 4
    .long 2f - 1f, 4f - 3f, 1
1:  .asciz "toolchain-version"
2:  .balign 4
3:  .long 1
4:


    .section .rodata.broch, "a", @progbits
/* What XRSTOR loads: everything in its initial state. Of the legacy area it reads MXCSR only; the
 * header's XSTATE_BV of 0 stands for the rest. All exceptions are masked and all flags set, so that
 * the time an instruction takes does not tell whether it set one (MCDT). */
    .balign 64
clean_state:
    .zero 24
    .long 0x1fbf, 0
    .zero 512 - 32
    .zero 64

/* Filled in by the converter, from the names in export.list. C knows them as broch_at_... . */
    .macro value name, alias, size
    .balign \size
    .globl \name, \alias
    .protected \name
    .hidden \alias
    .type \name, @object
    .size \name, \size
\name:
\alias:
    .zero \size
    .endm

    value HEAP_BASE, broch_at_heap_base, 8
    value HEAP_SIZE, broch_at_heap_size, 8
    value RELA, broch_at_rela, 8
    value RELACOUNT, broch_at_relacount, 8
    value ENCLAVE_SIZE, broch_at_enclave_size, 8
    value CFGDATA_BASE, broch_at_cfgdata_base, 8
    value TEXT_BASE, broch_at_text_base, 8
    value TEXT_SIZE, broch_at_text_size, 8
    value EH_FRM_OFFSET, broch_at_eh_frm_offset, 8
    value EH_FRM_LEN, broch_at_eh_frm_len, 8
    value EH_FRM_HDR_OFFSET, broch_at_eh_frm_hdr_offset, 8
    value EH_FRM_HDR_LEN, broch_at_eh_frm_hdr_len, 8
    value DEBUG, broch_at_debug, 1


    .text

/* RAX CSSA, RBX TCS, RCX where to return to, R10 the debug buffer; the rest in broch/sgx.h. */
    .globl sgx_entry
    .protected sgx_entry
    .type sgx_entry, @function
sgx_entry:
    .cfi_startproc
    .cfi_undefined rip
    /* With NSSA 1 no CPU enters a thread whose exception is not handled. If one did, its stack and
     * its saved registers would be in use: touch neither. */
    test %rax, %rax
    jnz stop

    mov %rcx, %gs:USER_RETURN
    mov %rsp, %gs:USER_RSP
    mov %rbp, %gs:USER_RBP
    mov %r12, %gs:USER_R12
    mov %r13, %gs:USER_R13
    mov %r14, %gs:USER_R14
    mov %r15, %gs:USER_R15
    stmxcsr %gs:USER_MXCSR
    fnstcw %gs:USER_FCW
    mov %r10, %gs:DEBUG_BUFFER /* checked before it is used, and used only if DEBUG is set */

    mov %rdx, %r11
    mov $-1, %eax
    mov $-1, %edx
    xrstor clean_state(%rip)
    mov %r11, %rdx

    mov %gs:WAITING_RSP, %rsp
    test %rsp, %rsp
    lfence
    jnz usercall_returns

    mov %gs:TOP, %rsp
    cmpq $0, %gs:ENTERED
    lfence
    jne 3f
    lea __ehdr_start(%rip), %rax
    add %rax, %rsp
    mov $RDRAND_TRIES, %ecx
1:  rdrand %rax
    jc 2f
    dec %ecx
    jnz 1b
    jmp stop
2:  mov %rax, %gs:CANARY
    mov %rsp, %gs:TOP
    movq $1, %gs:ENTERED

3:  push $FLAGS_CLEAR
    popfq
    cmpl $0, broch_dead(%rip)
    lfence
    jne dead

    mov %r8, %rcx
    mov %r9, %r8
    xor %ebp, %ebp
    call broch_enter /* (RDI, RSI, RDX, RCX, R8) -> (RAX, RDX) */
    mov %rax, %rsi
    xor %edi, %edi
    xor %r8d, %r8d
    xor %r9d, %r9d
    jmp leave

/* struct broch_result broch_usercall(number, p1, p2, p3, p4): exactly 5 arguments, since all of
 * their registers are shown to the host. */
    .globl broch_usercall
    .hidden broch_usercall
    .type broch_usercall, @function
broch_usercall:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    mov %rsp, %gs:WAITING_RSP
    mov %r8, %r9
    mov %rcx, %r8

/* RDI, RSI, RDX, R8, R9 are for the host; RSP is still ours. */
leave:
    mov %rdx, %r11
    mov $-1, %eax
    mov $-1, %edx
    xrstor clean_state(%rip)
    mov %r11, %rdx
    xor %ecx, %ecx
    xor %r10d, %r10d
    xor %r11d, %r11d
    mov %gs:USER_R12, %r12
    mov %gs:USER_R13, %r13
    mov %gs:USER_R14, %r14
    mov %gs:USER_R15, %r15
    mov %gs:USER_RETURN, %rbx
    ldmxcsr %gs:USER_MXCSR
    fldcw %gs:USER_FCW
    push $FLAGS_CLEAR
    popfq
    mov %gs:USER_RBP, %rbp
    mov %gs:USER_RSP, %rsp
    mov $EEXIT, %eax
    enclu
stop:
    ud2

/* RSP is what it was when the usercall was made; RSI and RDX are what the host answers. */
usercall_returns:
    movq $0, %gs:WAITING_RSP
    push $FLAGS_CLEAR
    popfq
    cmpl $0, broch_dead(%rip)
    lfence
    jne dead
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    mov %rsi, %rax
    ret

/* The enclave has ended; whoever enters is told so again. */
dead:
    mov $USERCALL_EXIT, %edi
    mov $1, %esi
    xor %edx, %edx
    xor %r8d, %r8d
    xor %r9d, %r9d
    jmp leave
    .cfi_endproc
    .size sgx_entry, . - sgx_entry


/* Not for the enclave: what Linux runs if the ELF file is run as a program. The converter takes
 * this section out. */
    .section .text_no_sgx, "ax", @progbits
    .globl elf_entry
    .hidden elf_entry
    .type elf_entry, @function
elf_entry:
    mov $1, %eax /* write */
    mov $2, %edi
    lea 1f(%rip), %rsi
    mov $2f - 1f, %edx
    syscall
    mov $60, %eax /* exit */
    mov $1, %edi
    syscall
1:  .ascii "This is an SGX enclave, not a program for Linux. Convert it and run it: "
    .ascii "broch sgx convert, broch run\n"
2:
    .size elf_entry, . - elf_entry

    .section .note.GNU-stack, "", @progbits
