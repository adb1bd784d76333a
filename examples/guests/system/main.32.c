/* `bits=32` runs the programs in 32-bit protected mode; lib/start.S goes on to 64-bit mode afterwards. */
#include "arguments.h"
#include "machine.h"
#include "multiboot.h"
#include "system.h"

void main32(uint32_t magic, const struct multiboot_info *info) {
  (void)magic;
  (void)info;
  if (argument_number("bits", 64) != 32) return;
  machine_init();
  system_run();
  machine_leave();
}
