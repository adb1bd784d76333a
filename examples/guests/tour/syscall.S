/* Into ring 3 and out of it. While the kernel runs, GS base is its own; SWAPGS at each crossing. */
#include "selectors.h"

#define PERCPU_KERNEL_STACK 0
#define PERCPU_USER_STACK 8
#define RFLAGS_FIXED 2

.section .text.syscall, "ax"
.code64

.macro save_callee_saved
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, leave_stack
.endm

.globl enter_by_iretq, enter_by_sysret, leave_user, syscall_entry
enter_by_iretq:
  save_callee_saved
  pushq $SEL_USER_DATA | 3
  push %rsi
  pushq $RFLAGS_FIXED
  pushq $SEL_USER_CODE64 | 3
  push %rdi
  swapgs
  iretq

enter_by_sysret:
  save_callee_saved
  mov %rdi, %rcx
  mov $RFLAGS_FIXED, %r11d
  mov %rsi, %rsp
  swapgs
  sysretq

leave_user:
  mov %rdi, %rax
  mov leave_stack, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

/* SYSCALL changes no stack and leaves the return address in RCX and the flags in R11. */
syscall_entry:
  swapgs
  mov %rsp, %gs:PERCPU_USER_STACK
  mov %gs:PERCPU_KERNEL_STACK, %rsp
  pushq %gs:PERCPU_USER_STACK
  push %rcx
  push %r11
  push %rdi
  push %rsi
  push %rdx
  push %r8
  push %r9
  push %r10
  sub $8, %rsp
  pushfq
  pop %rcx /* system_call(number, a, b, flags) */
  mov %rsi, %rdx
  mov %rdi, %rsi
  mov %rax, %rdi
  call system_call
  add $8, %rsp
  pop %r10
  pop %r9
  pop %r8
  pop %rdx
  pop %rsi
  pop %rdi
  pop %r11
  pop %rcx
  pop %rsp
  swapgs
  sysretq

.section .bss.syscall, "aw", @nobits
.balign 8
leave_stack:
  .skip 8
