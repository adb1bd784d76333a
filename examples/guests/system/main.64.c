/* What systems do besides computing, for measuring: `fast=`, `gate=`, `fault=`, `spaces=`, `out=`,
 * `cpuid=`, `msr=`, `ipi=`, `timer=`, `patch=`, `beside=` and `generate=` give the rounds of each,
 * `bits=32` the mode. */
#include "arguments.h"
#include "machine.h"
#include "system.h"
#include "traps.h"

int main(void) {
  traps_init();
  if (argument_number("bits", 64) != 32) {
    machine_init();
    system_run();
  }
  return 0;
}
