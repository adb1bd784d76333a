/* Where a start-up IPI leads: from real mode to 64-bit code, and the entries of IPIs. */
#include "selectors.h"

#define CR0_PE 1
#define CR0_PG (1 << 31)
#define CR4_PAE (1 << 5)
#define MSR_EFER 0xc0000080
#define EFER_LME (1 << 8)
#define STACK_SHIFT 13
#define CPUS 32

/* Copied to a page below 1 MiB: CS is that page's paragraph, IP 0. */
.section .text.trampoline, "ax"
.code16
.globl trampoline, trampoline_end
trampoline:
  cli
  lgdtl %cs:(1f - trampoline)
  mov %cr0, %eax
  or $CR0_PE, %al
  mov %eax, %cr0
  ljmpl $SEL_CODE32, $ap32
.balign 4
  .word 0
1:
  .word SEL_TSS - 1
  .long gdt
trampoline_end:

.code32
ap32:
  mov $SEL_DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov %cr4, %eax
  or $CR4_PAE, %eax
  mov %eax, %cr4
  mov $pml4, %eax
  mov %eax, %cr3
  mov $MSR_EFER, %ecx
  rdmsr
  or $EFER_LME, %eax
  wrmsr
  mov %cr0, %eax
  and $0x9fffffff, %eax /* INIT leaves caching off */
  or $CR0_PG, %eax
  mov %eax, %cr0
  ljmp $SEL_CODE64, $ap64

.code64
ap64:
  xor %eax, %eax
  mov %eax, %fs
  mov %eax, %gs
  mov $1, %edi
  lock xaddl %edi, ap_next
  mov %edi, %eax
  shl $STACK_SHIFT, %rax
  lea ap_stacks(%rax), %rsp
  xor %ebp, %ebp
  call ap_main

/* One entry for each vector from 30h on, 16 bytes apart. */
.section .text.ipi, "ax"
.globl ipi_stubs
.balign 16
ipi_stubs:
.set n, 0x30
.rept 256 - 0x30
  .balign 16
  push $n
  jmp ipi_enter
  .set n, n + 1
.endr

ipi_enter:
  push %rax
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %r8
  push %r9
  push %r10
  push %r11
  cld
  mov 9*8(%rsp), %edi
  push %rbp
  mov %rsp, %rbp
  and $-16, %rsp
  call ipi
  mov %rbp, %rsp
  pop %rbp
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rax
  add $8, %rsp
  iretq

.section .data.ap, "aw"
.balign 4
ap_next:
  .long 1 /* the number of the next processor to come up */

.section .bss.ap, "aw", @nobits
.balign 16
ap_stacks: /* processor n's begins at the end of part n - 1 */
  .skip CPUS << STACK_SHIFT
