#include "check.h"

#include "console.h"
#include "cpu.h"
#include "string.h"

struct tally tally;

void check(int good, const char *what) {
  tally.checks++;
  tally.failed += !good;
  print("%s %s\n", good ? "ok  " : "FAIL", what);
}

void check_equal(const char *what, uint64_t got, uint64_t want) {
  tally.checks++;
  if (got == want) {
    print("ok   %s: %llxh\n", what, (unsigned long long)got);
  } else {
    tally.failed++;
    print("FAIL %s: %llxh, not %llxh\n", what, (unsigned long long)got, (unsigned long long)want);
  }
}

/* CPUID leaf 4000_0000h, where leaf 1 ECX[31] says that there is one. */
static int is_tcg(void) {
  static const char tcg[] = "TCGTCGTCGTCG";
  struct cpuid h = cpuid(0x40000000, 0);
  if (!(cpuid(1, 0).ecx & 1u << 31)) return 0;
  return memcmp(&h.ebx, tcg, 12) == 0;
}

void check_but_tcg(int good, int deviation, const char *what) {
  if (!good && deviation && is_tcg()) {
    print("cpu: excused, a known deviation of QEMU's TCG: %s\n", what);
    good = 1;
  }
  check(good, what);
}
