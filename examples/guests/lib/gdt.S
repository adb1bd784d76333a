/* The global descriptor table and its pseudo-descriptor. */
#include "selectors.h"

/* A code or data descriptor: base, limit in bytes or pages, access byte, flags nibble. */
.macro descriptor base, limit, access, flags
  .word (\limit) & 0xffff, (\base) & 0xffff
  .byte ((\base) >> 16) & 0xff, (\access), ((\flags) << 4) | (((\limit) >> 16) & 0xf), ((\base) >> 24) & 0xff
.endm

.section .data.gdt, "aw"
.balign 16
.globl gdt
gdt:
  .quad 0
  descriptor 0, 0xfffff, 0x9a, 0xa           /* SEL_CODE64: L=1, D=0 */
  descriptor 0, 0xfffff, 0x92, 0xc           /* SEL_DATA */
  descriptor 0, 0xfffff, 0xfa, 0xc           /* SEL_USER_CODE32 */
  descriptor 0, 0xfffff, 0xf2, 0xc           /* SEL_USER_DATA */
  descriptor 0, 0xfffff, 0xfa, 0xa           /* SEL_USER_CODE64 */
  descriptor 0, 0xfffff, 0x9a, 0xc           /* SEL_CODE32 */
  descriptor LOW_MEMORY, 0xffff, 0x9a, 0     /* SEL_CODE16 */
  descriptor LOW_MEMORY, 0xffff, 0x92, 0     /* SEL_DATA16 */
  .quad 0, 0                                 /* SEL_TSS, filled in by tables_init() */
gdt_end:

.balign 4
  .word 0 /* so that the base below is aligned */
.globl gdt_pointer
gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
