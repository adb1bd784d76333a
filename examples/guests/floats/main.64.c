/* Floating point, for measuring: `bodies=`, `transform=`, `fractal=` and `blend=` (SSE2), `bodies87=`,
 * `fractal87=` and `series87=` (x87) give the rounds of each, `bits=32` the mode. */
#include "arguments.h"
#include "floats.h"
#include "traps.h"

int main(void) {
  traps_init();
  if (argument_number("bits", 64) != 32) floats_run();
  return 0;
}
