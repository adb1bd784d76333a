/* Entry from exceptions and interrupts in 64-bit mode, and the assembler half of attempt(). */
#include "selectors.h"

/* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX push an error code (AMD APM volume 2, 8.2). */
#define ERROR_CODES (1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30)

.section .text.vectors, "ax"
.code64

/* One stub a vector, 16 bytes apart, so that the handler learns which it was. A zero stands in
 * for a missing error code. */
.macro stub vector
  .balign 16
  .set has_error, 0
  .if \vector < 32
  .set has_error, (ERROR_CODES >> \vector) & 1
  .endif
  .if !has_error
  push $0
  .endif
  push $\vector
  jmp enter
.endm

.globl vector_stubs, vector_user_stub
.balign 16
vector_stubs:
.set n, 0
.rept 48
  stub n
  .set n, n + 1
.endr
vector_user_stub:
  stub 0x80

/* The kernel runs with its own GS base, so one is swapped in when the trap came from ring 3. */
enter:
  push %rax
  push %rbx
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %rbp
  push %r8
  push %r9
  push %r10
  push %r11
  push %r12
  push %r13
  push %r14
  push %r15
  testb $3, 18*8(%rsp) /* saved CS */
  jz 1f
  swapgs
1:
  cld
  mov %rsp, %rdi
  call trap
  testb $3, 18*8(%rsp) /* where to: trap() may have changed it */
  jz 1f
  swapgs
1:
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rbp
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rbx
  pop %rax
  add $16, %rsp
  iretq

/* int attempt(void *f, uint64_t a, uint64_t b) */
.globl attempt, attempt_landing
attempt:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  sub $8, %rsp
  mov %rsp, attempt_stack
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  call *%rax
  mov $-1, %eax
attempt_landing: /* trap() comes here with RSP restored and the vector in RAX */
  movq $0, attempt_stack
  add $8, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

.section .bss.attempt, "aw", @nobits
.balign 8
.globl attempt_stack
attempt_stack:
  .skip 8
