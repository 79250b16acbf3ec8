/* Numbers of docs/sancus-abi.md, for C and assembly. */
#ifndef BROCH_LAYOUT_H
#define BROCH_LAYOUT_H

#define IN 0x0400
#define OUT 0x0800
#define BUFFER 0x0400 /* bytes of IN, and of OUT */
#define EXIT 0x5c00
#define RANDOM 0x01b0

#define FUNCTION_START 0
#define FUNCTION_ATTEST 1
#define FUNCTION_GRANT 2
#define FUNCTION_INPUT 3
#define FUNCTION_ENTRY 4
#define FUNCTION_TICK 5
#define FUNCTION_INTERRUPT 6
#define DRIVER_RETURN 0xffff

#define STATUS_DONE 0
#define STATUS_NO_CONNECTION 1
#define STATUS_REPLAYED 2
#define STATUS_NOT_AUTHENTIC 3
#define STATUS_WRONG_TYPE 4
#define STATUS_NO_PORT 5
#define STATUS_NOT_ATTESTED 6
#define STATUS_NO_ROOM 7
#define STATUS_DRIVER 8
#define STATUS_LENGTH 9
#define STATUS_OUT_FULL 10
#define STATUS_REFUSED 11
#define STATUS_BROKEN 255

/* broch_busy: 0 where nothing runs, 1 in a call, and while a driver works: */
#define WAITING 2

/* What a driver does (r6), with r7 an offset in its peripherals and r8 a value; a word if 8 is set. */
#define DRIVER_READ 0
#define DRIVER_WRITE 1
#define DRIVER_SET 2
#define DRIVER_CLEAR 3
#define DRIVER_TOGGLE 4
#define DRIVER_WORD 8

#define STACK_RESERVE 192 /* bytes that author's code leaves for what it calls */

#endif
