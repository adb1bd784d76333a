/* A small workload, compiled for any x86-64 processor, or with the word `apx` written for APX: hashing,
 * text, a list, medians, a tree. Both print the same checksums. `rounds=` says how often each function is
 * called; how many ticks of the time-stamp counter that took stands in lines of their own. */
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "traps.h"
#include "work.h"

#define CPUID_XSAVE (1u << 26) /* 1 ECX */
#define CPUID_APX (1u << 21)   /* (7,1) EDX */
#define CR4_OSXSAVE (1ul << 18)
#define XCR0_X87_SSE_APX 0x80003

#define TEXT 4096
#define NODES 511
#define NUMBERS 1024

static uint64_t state[16], message[16];
static char text[TEXT];
static struct node list[NODES], tree[NODES];
static int64_t numbers[NUMBERS + 2];

static uint64_t seed = 1;
static uint64_t number(void) {
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return seed >> 11;
}

static void prepare(void) {
  for (unsigned k = 0; k < 16; k++) {
    state[k] = number() << 20 ^ number();
    message[k] = number() << 20 ^ number();
  }
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz_0123456789 +-*/=();.,{}\n ABC";
  for (unsigned k = 0; k < TEXT; k++) text[k] = letters[number() % (sizeof letters - 1)];
  for (unsigned k = 0; k < NODES; k++) {
    list[k].next = k + 1 < NODES ? &list[k + 1] : 0;
    list[k].other = number() % 3 ? &list[number() % NODES] : 0;
    list[k].value = number();
    tree[k].next = 2 * k + 1 < NODES ? &tree[2 * k + 1] : 0;
    tree[k].other = 2 * k + 2 < NODES ? &tree[2 * k + 2] : 0;
    tree[k].value = number();
  }
  for (unsigned k = 0; k < NUMBERS + 2; k++) numbers[k] = (int64_t)(number() << 11);
}

static int there(void) {
  return cpuid(1, 0).ecx & CPUID_XSAVE && cpuid(7, 1).edx & CPUID_APX;
}

static void enable(void) {
  __asm__ volatile("mov %0, %%cr4" : : "r"(read_cr4() | CR4_OSXSAVE) : "memory");
  __asm__ volatile("xsetbv" : : "c"(0), "a"(XCR0_X87_SSE_APX), "d"(0) : "memory");
}

static void report(const char *name, uint64_t ticks, uint64_t result) {
  print("apx: %s %lx\n", name, result);
  print("cpu: %s %lu ticks\n", name, ticks);
}

static void run(const struct work *work, uint64_t rounds) {
  uint64_t result = 0, begin = rdtsc();
  work->mix(state, message, 16 * rounds);
  uint64_t ticks = rdtsc() - begin;
  for (unsigned k = 0; k < 16; k++) result = result * 31 + state[k];
  report("mix", ticks, result);

#define TIMES(name, call)                                       \
  result = 0, begin = rdtsc();                                  \
  for (uint64_t k = 0; k < rounds; k++) result += work->call;   \
  report(name, rdtsc() - begin, result)

  TIMES("words", words(text, TEXT));
  TIMES("list", list(list));
  TIMES("medians", medians(numbers, NUMBERS));
  TIMES("tree", tree(tree, 0));
}

int main(void) {
  uint64_t rounds = argument_number("rounds", 10);
  const struct work *work = argument_present("apx") ? &apx : &plain;
  traps_init();
  if (work == &apx && !there()) {
    print("apx: there is no APX\n");
    return 1;
  }
  if (work == &apx) enable();
  prepare();
  print("cpu: %s\n", work->name);
  run(work, rounds);
  return 0;
}
