/* Moving memory, for measuring: `copy=`, `pages=`, `pieces=` and `search=` give the rounds of each,
 * `bits=32` the mode. */
#include "arguments.h"
#include "moves.h"
#include "traps.h"

int main(void) {
  traps_init();
  if (argument_number("bits", 64) != 32) moves_run();
  return 0;
}
