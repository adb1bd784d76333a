/* uint64_t call_compatibility(uint32_t value): from 64-bit code into a 32-bit code segment, a C function
 * there, and back. Registers the 64-bit ABI keeps are saved here: 32-bit code may lose upper halves. */
#include "selectors.h"

.section .text.compat, "ax"
.code64
.globl call_compatibility
call_compatibility:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  push %rdi
  pushq $SEL_CODE32
  pushq $narrow
  lretq
.code32
narrow:
  mov (%esp), %eax
  sub $12, %esp
  push %eax
  call _compatibility_call
  add $16, %esp
  ljmp $SEL_CODE64, $wide
.code64
wide:
  mov %eax, %eax
  add $8, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
