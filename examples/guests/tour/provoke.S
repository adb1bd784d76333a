/* See provoke.h. */
#include "provoke.h"

.section .text.provoke, "ax"
.code64

/* A function whose last instruction before RET faults at its own address ... */
.macro faults name:req, instruction:vararg
.globl \name\()_at
\name\()_at:
  \instruction
  ret
.endm

.globl divide_by_zero
divide_by_zero:
  xor %edx, %edx
  mov $1, %eax
  xor %ecx, %ecx
  faults divide_by_zero, div %rcx

.globl divide_overflow /* 5 * 2^64 / 5 needs 65 bits */
divide_overflow:
  mov $5, %edx
  xor %eax, %eax
  mov $5, %ecx
  faults divide_overflow, div %rcx

.globl divide_signed_overflow /* -2^63 / -1 */
divide_signed_overflow:
  mov $1, %eax
  shl $63, %rax
  cqo
  mov $-1, %rcx
  faults divide_signed_overflow, idiv %rcx

.globl undefined
undefined:
  faults undefined, ud2

.globl lock_on_register /* LOCK MOV EAX, EAX */
lock_on_register:
  faults lock_on_register, .byte 0xf0, 0x89, 0xc0

.globl not_canonical
not_canonical:
  mov $1, %eax
  shl $63, %rax
  faults not_canonical, mov (%rax), %rax

.globl bad_selector
bad_selector:
  mov $BAD_SELECTOR, %eax
  faults bad_selector, mov %eax, %es

.globl gate_without_type
gate_without_type:
  faults gate_without_type, int $VECTOR_EMPTY

.globl gate_not_present
gate_not_present:
  faults gate_not_present, int $VECTOR_ABSENT

/* ... and one that traps, naming the next. */
.globl breakpoint, breakpoint_at
breakpoint:
  int3
breakpoint_at:
  ret

.globl load, store, execute
load:
  mov (%rdi), %rax
  ret
store:
  mov %rsi, (%rdi)
  ret
execute:
  sub $8, %rsp
  call *%rdi
  add $8, %rsp
  ret
