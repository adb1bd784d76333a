/* Integer kernels for measuring: `chase=`, `interpret=`, `calls=`, `matrix=`, `virtual=`, `crc=` and
 * `strings=` give the rounds of each, `bits=32` the mode. No exits but for the line printed after each. */
#include "arguments.h"
#include "kernels.h"
#include "traps.h"

int main(void) {
  traps_init();
  if (argument_number("bits", 64) != 32) kernels_run();
  return 0;
}
