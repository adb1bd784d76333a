/* The 16-bit modes: puts the code of low.S where real mode can run it, and judges what it found. */
#include "low.h"

#include "check.h"
#include "cpu.h"
#include "selectors.h"
#include "string.h"
#include "tour32.h"

/* The loader's tables may lie where the code goes, so what was there comes back. */
static uint8_t saved[LOW_MEMORY_SIZE];

void visit_low(void) {
  struct low_results r;
  uint8_t *low = (uint8_t *)LOW_MEMORY;
  memcpy(saved, low, LOW_MEMORY_SIZE);
  memcpy(low, low_begin, low_end - low_begin);
  low_go();
  memcpy(&r, low + (low_results - low_begin), sizeof r);
  memcpy(low, saved, LOW_MEMORY_SIZE);

  check_equal("16-bit protected mode: bytes of a PUSH", r.protected_push, 2);
  check(r.protected_msw & CR0_PE, "16-bit protected mode: CR0.PE set");
  check_equal("real mode: bytes of a PUSH", r.real_push, 2);
  check(!(r.real_msw & CR0_PE), "real mode: CR0.PE clear");
  check_equal("real mode: INT pushes", r.interrupt_stack, 6);
  check(r.interrupt_frame, "real mode: INT pushes CS:IP of the next instruction");
  check_equal("real mode: AX from the handler", r.interrupt_ax, 0xedcb);
  check(r.interrupt_flags & RFLAGS_CF, "real mode: IRET takes FLAGS from the stack");
  check_equal("real mode: #DE taken, at the DIV", r.divisions, LOW_DIVISIONS);
  check_equal("real mode: one address by two segments", r.alias, 0xbeef);
  check_equal("real mode: FS reads above 1 MiB by the limit it brought along", r.high, LOW_MARKER);
}
