/* void enable_and_halt(void): an interrupt waits until HLT has begun, for STI holds it off for one
 * instruction (AMD APM volume 3, STI). */
.section .text.interrupt, "ax"
.code64
.globl enable_and_halt, enable_and_halt_at
enable_and_halt:
  sti
  hlt
enable_and_halt_at:
  ret
