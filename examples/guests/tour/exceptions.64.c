/* Exceptions: vector, error code and the address they name; stacks of their own; the double fault. */
#include "check.h"
#include "console.h"
#include "provoke.h"
#include "tour64.h"
#include "traps.h"

#define IST_FREE 3
#define GATE_PRESENT 0x80
#define GATE_INTERRUPT_ABSENT 0x0e
#define IDT_ERROR(vector) ((vector) * 8 + 2) /* error code: the vector, and that it is one */
#define TCG_IDT_ERROR(vector) ((vector) * 16 + 2) /* in QEMU 7.2 */
#define NONE ~0ul

static const struct {
  const char *name;
  void (*provoke)(void);
  const uint8_t *at;
  uint64_t vector, error;
  uint64_t tcg_error; /* what TCG gives instead, NONE for no exception at all; 0 where it is right */
} cases[] = {
    {"#DE: divide by zero", divide_by_zero, divide_by_zero_at, VECTOR_DE, 0, 0},
    {"#DE: quotient too large", divide_overflow, divide_overflow_at, VECTOR_DE, 0, 0},
    {"#DE: signed quotient too large", divide_signed_overflow, divide_signed_overflow_at, VECTOR_DE, 0, 0},
    {"#BP: INT3, naming the next instruction", breakpoint, breakpoint_at, VECTOR_BP, 0, 0},
    {"#UD: UD2", undefined, undefined_at, VECTOR_UD, 0, 0},
    {"#UD: LOCK on a register", lock_on_register, lock_on_register_at, VECTOR_UD, 0, NONE},
    {"#GP: address not canonical", not_canonical, not_canonical_at, VECTOR_GP, 0, 0},
    {"#GP: selector past the GDT", bad_selector, bad_selector_at, VECTOR_GP, BAD_SELECTOR, 0},
    {"#GP: INT to a gate of no type", gate_without_type, gate_without_type_at, VECTOR_GP,
     IDT_ERROR(VECTOR_EMPTY), TCG_IDT_ERROR(VECTOR_EMPTY)},
    {"#NP: INT to a gate not present", gate_not_present, gate_not_present_at, VECTOR_NP,
     IDT_ERROR(VECTOR_ABSENT), TCG_IDT_ERROR(VECTOR_ABSENT)},
};
#define CASES (sizeof cases / sizeof cases[0])

static int on_ist(unsigned n) {
  uint64_t top = tss.ist[n - 1];
  return fault.stack < top && fault.stack + 1024 >= top;
}

void visit_exceptions(void) {
  idt[VECTOR_ABSENT].type = GATE_INTERRUPT_ABSENT;
  for (unsigned i = 0; i < CASES; i++) {
    int vector = attempt(cases[i].provoke, 0, 0);
    int there = vector == (int)cases[i].vector && fault.frame.rip == (uint64_t)cases[i].at;
    int good = there && fault.error == cases[i].error;
    uint64_t tcg = cases[i].tcg_error;
    int deviation = tcg == NONE ? vector == NO_FAULT : tcg && there && fault.error == tcg;
    if (!good && !deviation) {
      print("got vector %u error %lx rip %lx, not %lu %lx %lx\n", vector, fault.error, fault.frame.rip,
            cases[i].vector, cases[i].error, (uint64_t)cases[i].at);
    }
    check_but_tcg(good, deviation, cases[i].name);
  }

  attempt(breakpoint, 0, 0);
  check(fault.frame.rsp > fault.stack && fault.frame.rsp - fault.stack < 512,
        "without IST: the frame is on the interrupted stack");
  idt[VECTOR_BP].ist = IST_FREE;
  attempt(breakpoint, 0, 0);
  check(on_ist(IST_FREE), "with IST 3: the frame is on that stack");
  idt[VECTOR_BP].ist = 0;

  /* #GP, while delivering it #NP, which two make a #DF. */
  idt[VECTOR_GP].type &= ~GATE_PRESENT;
  int vector = attempt(not_canonical, 0, 0);
  idt[VECTOR_GP].type |= GATE_PRESENT;
  check(vector == VECTOR_DF && fault.error == 0, "#DF: two contributory exceptions, error code 0");
  check(on_ist(1), "#DF: on IST 1");
}
