/* Halts with interrupts off: nothing but an NMI, SMI or INIT goes on from here. */
#include "console.h"

int main(void) {
  print("hang: halting with interrupts off\n");
  console_drain();
  for (;;) __asm__ volatile("cli; hlt");
}
