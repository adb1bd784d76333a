/* The first half of the tour, in 32-bit protected mode and out from it. lib/start.S calls main32() with
 * what the loader passed, and goes on to 64-bit mode when it returns. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "tour32.h"

static void visit_protected(void) {
  unsigned before, after;
  print("mode: protected, 32-bit\n");
  check((read_cr0() & (CR0_PE | CR0_PG)) == CR0_PE, "CR0.PE set, CR0.PG clear");
  __asm__ volatile("mov %%esp, %0; push $0; mov %%esp, %1; add $4, %%esp"
                   : "=&r"(before), "=&r"(after)
                   :
                   : "memory");
  check_equal("bytes of a PUSH", before - after, 4);
}

void main32(uint32_t magic, const struct multiboot_info *info) {
  print("tour: begin\n");
  visit_boot(magic, info);
  visit_protected();
  visit_low();
  print("mode: protected, 32-bit, again\n");
  visit_legacy_paging();
  visit_pae_paging();
  visit_compatibility();
}
