/* Locked additions: `whole=` within a line of the cache, `split=` across two, which locks the bus;
 * without either, each 100 times. */
#include "arguments.h"
#include "console.h"
#include "traps.h"

#define LINE 64

static uint8_t lines[2 * LINE] __attribute__((aligned(LINE)));

static void add(volatile uint32_t *where, uint64_t times) {
  while (times--) __asm__ volatile("lock addl $1, %0" : "+m"(*where) : : "cc");
}

static int run(const char *name, volatile uint32_t *where, uint64_t times) {
  *where = 0;
  add(where, times);
  print("locks: %s %lu\n", name, (uint64_t)*where);
  return *where == (uint32_t)times;
}

int main(void) {
  int alone = !argument_present("whole") && !argument_present("split"), good = 1;
  traps_init();
  uint64_t whole = argument_number("whole", alone ? 100 : 0);
  uint64_t split = argument_number("split", alone ? 100 : 0);
  if (whole) good &= run("whole", (volatile uint32_t *)lines, whole);
  if (split) good &= run("split", (volatile uint32_t *)(lines + LINE - 2), split);
  print("locks: end\n");
  return !good;
}
