/* Debug exceptions: `nop=` single-steps over a NOP, `sti=` over an STI behind which interrupts wait for one
 * instruction more, `int1=` executes INT1; without any, 3 steps over each. Each is one #DB, with DR6.BS for the
 * steps, and the handler ends the stepping. */
#include "arguments.h"
#include "console.h"
#include "io.h"
#include "traps.h"

#define VECTOR_DB 1
#define TF 0x100ul
#define DR6_BS 0x4000ul
#define DR6_INITIAL 0xffff0ff0ul

static volatile uint64_t steps, bad;
static uint64_t cause;

static void on_debug(struct frame *frame) {
  unsigned long dr6;
  __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
  __asm__ volatile("mov %0, %%dr6" : : "r"(DR6_INITIAL));
  steps++;
  if (dr6 != (DR6_INITIAL | cause)) bad++;
  frame->rflags &= ~TF;
}

static void over_nop(void) {
  __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" : : : "cc", "memory");
}

static void over_sti(void) {
  __asm__ volatile("cli; pushfq; orq $0x100, (%%rsp); popfq; sti; nop; cli" : : : "cc", "memory");
}

static void int1(void) { __asm__ volatile(".byte 0xf1" : : : "memory"); }

static int run(const char *name, void (*step)(void), uint64_t bits, uint64_t times) {
  steps = bad = 0;
  cause = bits;
  for (uint64_t k = 0; k < times; k++) step();
  print("steps: %s %lu of %lu\n", name, steps, times);
  return steps == times && !bad;
}

int main(void) {
  int alone =
      !argument_present("nop") && !argument_present("sti") && !argument_present("int1");
  int good = 1;
  traps_init();
  outb(0x21, 0xff); /* STI must let nothing in: firmware may have left the interval timer ticking */
  trap_handle(VECTOR_DB, on_debug);
  uint64_t plain = argument_number("nop", alone ? 3 : 0);
  uint64_t shadowed = argument_number("sti", alone ? 3 : 0);
  uint64_t calls = argument_number("int1", 0);
  if (plain) good &= run("nop", over_nop, DR6_BS, plain);
  if (calls) good &= run("int1", int1, 0, calls);
  if (shadowed) good &= run("sti", over_sti, DR6_BS, shadowed);
  print("steps: end\n");
  return !good;
}
