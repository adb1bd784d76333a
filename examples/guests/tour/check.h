/* Checks: a line for each, and a count of them. 32-bit and 64-bit code each count their own. */
#ifndef CHECK_H
#define CHECK_H
#include <stdint.h>

struct tally {
  uint32_t checks, failed;
};
extern struct tally tally;

/* Prints `ok   what` or `FAIL what`. */
void check(int good, const char *what);

/* The same, with the value in hexadecimal, which is the same on every machine; and the wanted one if it
 * differs. */
void check_equal(const char *what, uint64_t got, uint64_t want);

/* check(), for what QEMU's TCG is known to do otherwise. `deviation` says that it did exactly that; then,
 * and only where CPUID names TCG, the check is excused: it counts as passed after a line that starts with
 * `cpu: excused`. */
void check_but_tcg(int good, int deviation, const char *what);

#endif
