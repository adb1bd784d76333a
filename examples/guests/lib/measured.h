/* Small programs for measuring, each run as many rounds as the command line says. */
#ifndef MEASURED_H
#define MEASURED_H
#include <stdint.h>

struct measured {
  const char *name;
  /* Does the work so many times over; answers a checksum that depends on all of it, and on neither the
   * mode nor the machine. */
  uint32_t (*run)(uint32_t rounds);
};

/* Runs what the command line names, `name=rounds`, or all once if it names none, and prints a line with
 * the checksum after each. */
void measured_run(const char *guest, const struct measured *programs, unsigned count);

#endif
