/* Jumps where nothing is, with an IDT of 256 gates none of which is present: the #PF ends as a triple
 * fault. With the word `hole` it jumps to a page that is mapped, but to a physical address (3.5 GiB)
 * where a small machine has no memory: what is fetched there is the machine's affair. */
#include "arguments.h"
#include "console.h"

#define UNMAPPED 0x0000500000000000ul /* canonical, outside the one-to-one map */
#define HOLE 0xe0000000ul

static unsigned char gates[256 * 16] __attribute__((section(".bss.gates"), aligned(16)));

int main(void) {
  struct {
    unsigned short limit;
    const void *base;
  } __attribute__((packed)) idt = {sizeof gates - 1, gates};
  unsigned long target = argument_present("hole") ? HOLE : UNMAPPED;
  print("wildjump: to %016lx\n", target);
  console_drain();
  __asm__ volatile("lidt %0; jmp *%1" : : "m"(idt), "r"(target) : "memory");
  __builtin_unreachable();
}
