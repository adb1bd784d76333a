/* R16-R31, which no compiler here knows. */
#include "apx.h"

.text

/* void set_egprs(uint64_t value): R16 + k = value + k. */
.global set_egprs
set_egprs:
  .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  rex2_mem OP_LEA, \n, RDI, (\n-16)
  .endr
  ret

/* uint64_t check_egprs(uint64_t value, uint64_t rounds): looks so often whether they are what
 * set_egprs(value) has made them; all bits in which they differed. */
.global check_egprs
check_egprs:
  xor %eax, %eax
1:
  .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
  lea (\n-16)(%rdi), %rdx
  rex2 OP_XOR, RDX, \n
  or %rdx, %rax
  .endr
  dec %rsi
  jnz 1b
  ret

/* void write_icr(uint64_t value): the x2APIC's ICR (MSR 830h) from R20, with WRMSRNS. */
.global write_icr
write_icr:
  rex2 OP_MOV, 20, RDI
  wrmsrns_imm 0x830, 20
  ret

/* uint64_t read_apic_base(void): IA32_APIC_BASE (MSR 1Bh) by way of R27. */
.global read_apic_base
read_apic_base:
  rdmsr_imm 27, 0x1b
  rex2 OP_MOV, RAX, 27
  ret
