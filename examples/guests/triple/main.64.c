/* Triple-faults: an exception with no IDT to take it, then none to take the #GP and the #DF either. */
#include "console.h"

int main(void) {
  static const struct {
    unsigned short limit;
    unsigned long base;
  } __attribute__((packed)) none = {0, 0};
  print("triple: about to\n");
  console_drain();
  __asm__ volatile("lidt %0; ud2" : : "m"(none));
  print("triple: still here\n");
  return 1;
}
