/* Programs for ring 3. The block is copied to user pages elsewhere, so every address is relative to RIP,
 * and nothing outside the block is used. */
#include "user.h"

#include "console.h"
#include "exit.h"

.section .rodata.user, "a"
.code64
.balign 16
.globl user_begin, user_end
user_begin:

.macro system_call number
  mov $\number, %eax
  syscall
.endm
.macro write text, end
  lea \text(%rip), %rdi
  mov $\end - \text, %esi
  system_call SYS_WRITE
.endm
.macro report index, register
  mov \register, %rsi
  mov $\index, %edi
  system_call SYS_REPORT
.endm
.macro leave_with value
  mov $\value, %edi
  system_call SYS_EXIT
.endm

/* The long one. */
.globl user_tour
user_tour:
  write first_text, first_end

  mov %cs, %eax
  report REPORT_CS, %rax
  mov %ss, %eax
  report REPORT_SS, %rax

  pushfq
  pop %rbx
  system_call SYS_FLAGS
after_syscall:
  mov %rcx, %r12
  mov %r11, %r13
  report REPORT_RCX, %r12
  lea after_syscall(%rip), %r12
  report REPORT_NEXT, %r12
  report REPORT_R11, %r13
  report REPORT_FLAGS, %rbx

  std
  system_call SYS_FLAGS
  pushfq
  cld
  pop %rbx
  mov %rax, %r12
  report REPORT_INSIDE, %r12
  report REPORT_AFTER, %rbx

  mov $0x1111, %r8d
  mov $0x2222, %r9d
  mov $0x3333, %r10d
  mov $0x4444, %edi
  mov $0x5555, %esi
  mov $0x6666, %edx
  mov %rsp, %rbx
  system_call SYS_FLAGS
  sub %rsp, %rbx
  sub $0x1111, %r8
  sub $0x2222, %r9
  sub $0x3333, %r10
  sub $0x4444, %rdi
  sub $0x5555, %rsi
  sub $0x6666, %rdx
  or %r8, %rbx
  or %r9, %rbx
  or %r10, %rbx
  or %rdi, %rbx
  or %rsi, %rbx
  or %rdx, %rbx
  report REPORT_KEPT, %rbx

  cli /* the kernel says no, skips it, and comes back */
  write denied_text, denied_end

  lea gate_text(%rip), %rdi
  mov $gate_end - gate_text, %esi
  mov $SYS_WRITE, %eax
  int $USER_GATE

  mov $0x600d, %eax
  report REPORT_DONE, %rax
  leave_with 7

/* Only there and back. */
.globl user_brief
user_brief:
  write brief_text, brief_end
  leave_with 9

/* Prints by itself, the I/O permission map allowing it COM1. */
.globl user_port
user_port:
  lea port_text(%rip), %rbx
1:
  mov (%rbx), %cl
  test %cl, %cl
  jz 3f
2:
  mov $UART_LSR, %edx
  in (%dx), %al
  test $UART_LSR_THRE, %al
  jz 2b
  mov %cl, %al
  mov $UART_DATA, %edx
  out %al, (%dx)
  inc %rbx
  jmp 1b
3:
  leave_with 11

/* Each of these is denied its first instruction. */
.macro denied name:req, instruction:vararg
.globl user_\name
user_\name:
  \instruction
  leave_with 0
.endm
  denied cli, cli
  denied hlt, hlt
  denied out, out %al, $DEBUG_EXIT_PORT
  denied cr0, mov %cr0, %rax
  denied rdmsr, rdmsr
  denied lidt, lidt (%rsp)
  denied invlpg, invlpg (%rsp)
  denied sysret, sysretq
  denied swapgs, swapgs
  denied gate, int $USER_DENIED_GATE
  denied read, mov SUPERVISOR_ADDRESS, %al
  denied write, mov %al, SUPERVISOR_ADDRESS

.globl user_fetch
user_fetch:
  mov $SUPERVISOR_ADDRESS, %eax
  jmp *%rax

first_text:
  .ascii "user: in ring 3, by IRETQ and SYSCALL\n"
first_end:
denied_text:
  .ascii "user: CLI denied, still in ring 3\n"
denied_end:
gate_text:
  .ascii "user: a system call by INT 80h\n"
gate_end:
brief_text:
  .ascii "user: in ring 3, by SYSRET\n"
brief_end:
port_text:
  .asciz "user: OUT to a port the TSS allows\n"
user_end:
