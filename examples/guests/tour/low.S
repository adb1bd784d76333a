/* 16-bit code: protected mode with 16-bit segments, then real mode, then back.
 *
 * Real mode reaches one megabyte, so this block is copied to LOW_MEMORY and runs there, with every
 * segment based on it: an address is an offset into the block, written OFFSET(label). */
#include "low.h"

#include "console.h"
#include "selectors.h"

#define OFFSET(label) ((label) - low_begin)
#define LOW_SEGMENT (LOW_MEMORY >> 4)

.section .text.low, "ax"
.globl _low_begin, _low_end, _low_results, _low_go

.code32
_low_go:
  pusha
  mov %esp, saved_esp
  ljmp $SEL_CODE16, $0 /* low_begin, in the copy */

.code16
_low_begin:
low_begin:
  mov $SEL_DATA16, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $LOW_MEMORY_SIZE, %sp
  mov $SEL_DATA, %ax /* FS keeps this 4 GiB limit in real mode */
  mov %ax, %fs

  mov $OFFSET(protected_text), %si
  call puts
  mov %sp, %bx
  push $1
  sub %sp, %bx
  mov %bx, OFFSET(protected_push)
  add %bx, %sp
  smsw OFFSET(protected_msw)

  /* To real mode: 64 KiB segments are in place, the IDTR must name the vector table at 0. */
  lidtl OFFSET(real_idt)
  mov %cr0, %eax
  and $~1, %al
  mov %eax, %cr0
  ljmp $LOW_SEGMENT, $OFFSET(real)

real:
  mov %cs, %ax
  mov %ax, %ds
  mov %ax, %ss
  xor %ax, %ax
  mov %ax, %es
  mov $OFFSET(real_text), %si
  call puts
  mov %sp, %bx
  push $1
  sub %sp, %bx
  mov %bx, OFFSET(real_push)
  add %bx, %sp
  smsw OFFSET(real_msw)

  /* Two vectors of the table are ours for a while: ES is 0. */
  pushl %es:0x00 * 4
  pushl %es:0x60 * 4
  movw $OFFSET(divide), %es:0x00 * 4
  mov %cs, %es:0x00 * 4 + 2
  movw $OFFSET(software), %es:0x60 * 4
  mov %cs, %es:0x60 * 4 + 2

  mov %sp, OFFSET(stack_before)
  mov $0x1234, %ax
  clc
  int $0x60
after_int:
  pushf
  mov %ax, OFFSET(interrupt_ax)
  popw OFFSET(interrupt_flags)

  xor %cx, %cx
  mov $1, %ax
1:
  div %cl
divide_next:
  mov $2, %ax
  div %cl
divide_second_next:

  popl %es:0x60 * 4
  popl %es:0x00 * 4

  /* segment:offset and (segment + 1):(offset - 16) are one address. */
  mov %cs, %ax
  inc %ax
  mov %ax, %es
  movw $0xbeef, OFFSET(scratch)
  mov %es:OFFSET(scratch) - 16, %ax
  mov %ax, OFFSET(alias)

  mov $low_marker, %ebx
  mov %fs:(%ebx), %eax
  mov %eax, OFFSET(high)

  /* And back to protected mode. */
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $SEL_CODE32, $back

/* INT 60h: inverts AX, sets CF in the caller's flags. */
software:
  push %bp
  mov %sp, %bp
  push %bx
  push %si
  push %ax
  mov OFFSET(stack_before), %bx
  sub %bp, %bx
  sub $2, %bx /* BP itself */
  mov %bx, OFFSET(interrupt_stack)
  cmpw $OFFSET(after_int), 2(%bp)
  jne 1f
  cmpw $LOW_SEGMENT, 4(%bp)
  jne 1f
  movw $1, OFFSET(interrupt_frame)
1:
  orw $1, 6(%bp)
  mov $OFFSET(software_text), %si
  call puts
  pop %ax
  pop %si
  pop %bx
  pop %bp
  not %ax
  iret

/* #DE: counts it if the return address is one of the DIVs, and skips them. */
divide:
  push %bp
  mov %sp, %bp
  push %bx
  mov 2(%bp), %bx
  add $2, %bx /* DIV CL has two bytes */
  cmp $OFFSET(divide_next), %bx
  je 1f
  cmp $OFFSET(divide_second_next), %bx
  jne 2f
1:
  incw OFFSET(divisions)
2:
  mov %bx, 2(%bp)
  pop %bx
  pop %bp
  iret

/* Prints the text at DS:SI. */
puts:
  lodsb
  test %al, %al
  jz 2f
  mov %al, %ah
  mov $UART_LSR, %dx
1:
  in (%dx), %al
  test $UART_LSR_THRE, %al
  jz 1b
  mov %ah, %al
  mov $UART_DATA, %dx
  out %al, (%dx)
  jmp puts
2:
  ret

protected_text:
  .asciz "mode: protected, 16-bit\n"
real_text:
  .asciz "mode: real\n"
software_text:
  .asciz "mode: real, in software interrupt 60h\n"
.balign 4
real_idt:
  .word 256 * 4 - 1
  .long 0
stack_before:
  .word 0
scratch:
  .word 0

/* struct low_results */
_low_results:
protected_push:
  .word 0
protected_msw:
  .word 0
real_push:
  .word 0
real_msw:
  .word 0
interrupt_ax:
  .word 0
interrupt_stack:
  .word 0
interrupt_flags:
  .word 0
interrupt_frame:
  .word 0
divisions:
  .word 0
alias:
  .word 0
high:
  .long 0
_low_end:

.code32
back:
  mov $SEL_DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %ss
  mov saved_esp, %esp
  popa
  ret

.section .rodata.low, "a"
.balign 4
.globl _low_marker
_low_marker:
low_marker:
  .long LOW_MARKER

.section .bss.low, "aw", @nobits
.balign 4
saved_esp:
  .skip 4
