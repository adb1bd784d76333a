/* The second half of the tour, in 64-bit mode, and the verdict. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "pic.h"
#include "tour64.h"
#include "traps.h"

extern const struct tally tally32 __asm__("_tally"); /* what the 32-bit half counted */

void visit_long(void) {
  uint64_t wide = 0xffffffffffffffff;
  print("mode: long, 64-bit\n");
  check((rdmsr(MSR_EFER) & (EFER_LME | EFER_LMA)) == (EFER_LME | EFER_LMA), "EFER.LME and LMA set");
  __asm__ volatile("movq $-1, %%r15; movl $5, %%r15d; movq %%r15, %0" : "=r"(wide) : : "r15");
  check_equal("a 32-bit move clears the upper half", wide, 5);
  __asm__ volatile("movq $-1, %%r15; movw $5, %%r15w; movq %%r15, %0" : "=r"(wide) : : "r15");
  check_equal("a 16-bit move keeps it", wide, 0xffffffffffff0005);
  check_equal("compatibility mode: opcode 40h increments", call_compatibility(0x1000), 0x1001);
  print("mode: long, 64-bit, again\n");
}

int main(void) {
  traps_init();
  pic_init(VECTOR_IRQ_BASE);
  visit_long();
  visit_cpuid();
  visit_msrs();
  visit_exceptions();
  visit_pages();
  visit_user();
  visit_ports();
  visit_interrupts();
  visit_strings();
  visit_compute();

  uint32_t checks = tally32.checks + tally.checks, failed = tally32.failed + tally.failed;
  print("tour: %u checks, %u failed\n", checks, failed);
  return failed != 0;
}
