/* Ring-3 programs and the ways into the kernel, in the manner of systems: registers that C may change are
 * saved, the user's GS is swapped for the kernel's. System calls take a number in EAX, 0 to be done, and
 * an argument in EDI. */
#include "machine.h"
#include "selectors.h"

#define USER_STACK 4096
#define RFLAGS_FIXED 2
#define RING3 3
#define MSR_SYSENTER_ESP 0x175

.macro save
  push %rax
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %r8
  push %r9
  push %r10
  push %r11
.endm
.macro restore
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rax
.endm

.section .text.entries64, "ax"
.code64
.globl enter_user, user_fast, user_gate, entry_fast, entry_gate, entry_fault, entry_interrupt

enter_user: /* RDI is the program, ESI its count */
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, leave_stack
  mov %rsp, tss + 4
  mov %rsp, processor_area
  push $SEL_USER_DATA | RING3
  push $user_stack + USER_STACK
  push $RFLAGS_FIXED
  push $SEL_USER_CODE64 | RING3
  push %rdi
  mov %esi, %ebx
  swapgs
  iretq

leave_user: /* from an entry, with the kernel's GS */
  mov leave_stack, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

user_fast:
1:
  mov $1, %eax
  mov %ebx, %edi
  syscall
  dec %ebx
  jnz 1b
  xor %eax, %eax
  syscall

user_gate:
1:
  mov $1, %eax
  mov %ebx, %edi
  int $VECTOR_CALL
  dec %ebx
  jnz 1b
  xor %eax, %eax
  int $VECTOR_CALL

entry_fast:
  swapgs
  mov %rsp, %gs:8
  mov %gs:0, %rsp
  test %eax, %eax
  jz leave_user
  push %rcx
  push %r11
  mov %edi, %esi
  mov %eax, %edi
  call system_call
  pop %r11
  pop %rcx
  mov %gs:8, %rsp
  swapgs
  sysretq

entry_gate:
  swapgs
  test %eax, %eax
  jz leave_user
  save
  mov %edi, %esi
  mov %eax, %edi
  call system_call
  restore
  swapgs
  iretq

entry_fault:
  save
  cld
  mov %cr2, %rdi
  call page_fault
  restore
  add $8, %rsp
  iretq

entry_interrupt:
  save
  cld
  call interrupt
  restore
  iretq

.section .text.entries32, "ax"
.code32
.globl _enter_user, _user_fast, _user_gate, _entry_fast, _entry_gate, _entry_fault, _entry_interrupt

_enter_user:
  push %ebp
  push %edi
  push %esi
  push %ebx
  mov 20(%esp), %esi
  mov 24(%esp), %ebx
  mov %esp, leave_stack
  mov %esp, _tss32 + 4
  mov $MSR_SYSENTER_ESP, %ecx
  mov %esp, %eax
  xor %edx, %edx
  wrmsr
  mov $SEL_USER_DATA | RING3, %eax
  mov %eax, %ds
  mov %eax, %es
  push %eax
  push $user_stack + USER_STACK
  push $RFLAGS_FIXED
  push $SEL_USER_CODE32 | RING3
  push %esi
  iret

leave_user32:
  ljmp $SEL_CODE32, $1f /* SYSENTER's CS is another */
1:
  mov $SEL_DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov leave_stack, %esp
  pop %ebx
  pop %esi
  pop %edi
  pop %ebp
  ret

_user_fast:
1:
  mov $1, %eax
  mov %ebx, %edi
  mov %esp, %ecx
  mov $2f, %edx
  sysenter
2:
  dec %ebx
  jnz 1b
  xor %eax, %eax
  sysenter

_user_gate:
1:
  mov $1, %eax
  mov %ebx, %edi
  int $VECTOR_CALL
  dec %ebx
  jnz 1b
  xor %eax, %eax
  int $VECTOR_CALL

_entry_fast:
  test %eax, %eax
  jz leave_user32
  push %ecx
  push %edx
  push %edi
  push %eax
  call _system_call
  add $8, %esp
  pop %edx
  pop %ecx
  sysexit

_entry_gate:
  test %eax, %eax
  jz leave_user32
  pusha
  push %edi
  push %eax
  call _system_call
  add $8, %esp
  popa
  iret

_entry_fault:
  pusha
  cld
  mov %cr2, %eax
  push %eax
  call _page_fault
  add $4, %esp
  popa
  add $4, %esp
  iret

_entry_interrupt:
  pusha
  cld
  call _interrupt
  popa
  iret

.section .bss.entries, "aw", @nobits
.balign 16
user_stack:
  .skip USER_STACK
leave_stack: /* where enter_user() left the kernel's stack */
  .skip 8
