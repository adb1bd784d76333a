/* Makes exits by the counted thousand, kind after kind, and nothing else. Every kind is a key on the
 * command line with the number of rounds (0 leaves it out); without any, each runs 1000 times.
 * `port=` and `msr=` choose what is written and read; the defaults, the UART's scratch register and
 * EFER, exist everywhere and change nothing. */
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "io.h"
#include "traps.h"

static uint16_t port;
static uint32_t msr;

static int do_out(uint64_t n) {
  for (uint64_t i = 0; i < n; i++) outb(port, (uint8_t)i);
  return 1;
}

static int do_in(uint64_t n) {
  uint8_t last = inb(port);
  int same = 1;
  for (uint64_t i = 1; i < n; i++) same &= inb(port) == last;
  return same;
}

/* One REP OUTSB for each 16 bytes. */
static int do_outs(uint64_t n) {
  static const uint8_t bytes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  while (n) {
    uint64_t take = n < sizeof bytes ? n : sizeof bytes;
    outsb(port, bytes, take);
    n -= take;
  }
  return 1;
}

static int do_cpuid(uint64_t n) {
  struct cpuid first = cpuid(0, 0);
  int same = 1;
  for (uint64_t i = 1; i < n; i++) same &= cpuid(0, 0).eax == first.eax;
  return same;
}

static int do_rdmsr(uint64_t n) {
  uint64_t first = rdmsr(msr);
  int same = 1;
  for (uint64_t i = 1; i < n; i++) same &= rdmsr(msr) == first;
  return same;
}

static int do_wrmsr(uint64_t n) {
  uint64_t value = rdmsr(msr);
  for (uint64_t i = 0; i < n; i++) wrmsr(msr, value);
  return rdmsr(msr) == value;
}

/* MOV to CR0, CR0.WP changing each time. */
static int do_cr0(uint64_t n) {
  uint64_t value = read_cr0();
  for (uint64_t i = 0; i < n; i++) write_cr0(i & 1 ? value : value ^ CR0_WP);
  write_cr0(value);
  return read_cr0() == value;
}

/* MOV to CR3: a flush of the TLB. */
static int do_cr3(uint64_t n) {
  uint64_t value = read_cr3();
  for (uint64_t i = 0; i < n; i++) write_cr3(value);
  return read_cr3() == value;
}

static const struct {
  const char *name;
  int (*run)(uint64_t n);
} kinds[] = {
    {"out", do_out},     {"in", do_in},       {"outs", do_outs}, {"cpuid", do_cpuid},
    {"rdmsr", do_rdmsr}, {"wrmsr", do_wrmsr}, {"cr0", do_cr0},   {"cr3", do_cr3},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

int main(void) {
  int chosen = 0, failed = 0;
  traps_init();
  port = (uint16_t)argument_number("port", UART_SCR);
  msr = (uint32_t)argument_number("msr", MSR_EFER);
  for (unsigned i = 0; i < KINDS; i++) chosen |= argument_present(kinds[i].name);
  for (unsigned i = 0; i < KINDS; i++) {
    uint64_t n = argument_number(kinds[i].name, chosen ? 0 : 1000);
    if (!n) continue;
    int good = kinds[i].run(n);
    print("exits: %s %lu%s\n", kinds[i].name, n, good ? "" : " FAIL: a value changed");
    failed |= !good;
  }
  return failed;
}
