#include "exit.h"

#include "console.h"
#include "io.h"

void guest_exit(unsigned char code) {
  console_drain();
  outb(DEBUG_EXIT_PORT, code);
  for (;;) __asm__ volatile("cli; hlt");
}
