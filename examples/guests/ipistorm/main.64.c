/* Every processor sends IPIs to random others in random ways, and at the end each must have been
 * received exactly as often as it was sent.
 *
 * A vector that is requested already swallows a second request, so nobody sends a vector to a processor
 * before the last one of it was received: vectors belong to senders, four to each. All this is in
 * memory, so the count itself cannot be lost.
 *
 * `ipis=` is how many are sent in all (a broadcast counts once for each receiver), `seed=` chooses the
 * pattern, `x2apic` the mode, `cpus=` the number of processors, and `naps` has processors go to sleep
 * now and then with nothing but their timer to wake them. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "smp.h"
#include "traps.h"

#define LANES 4        /* vectors that each processor sends */
#define FIRST_VECTOR 0x30
#define TIMER_VECTOR 0xf0
#define WAKE_VECTOR 0xf1
#define PATIENCE 20000000000ull /* ticks until an IPI counts as lost */

static unsigned count, share, seed;
static int x2, naps;
static unsigned sent[MAX_CPUS][MAX_CPUS][LANES];              /* by sender, receiver, lane */
static volatile unsigned received[MAX_CPUS][MAX_CPUS][LANES]; /* by receiver, sender, lane */
static volatile unsigned stray, rung[MAX_CPUS];
static volatile unsigned finished, over;

static void handle(unsigned vector) {
  unsigned self = smp_self(), lane = vector - FIRST_VECTOR;
  if (vector == TIMER_VECTOR) rung[self]++;
  else if (vector == WAKE_VECTOR) return;
  else if (lane < count * LANES) received[self][lane / LANES][lane % LANES]++;
  else __atomic_add_fetch(&stray, 1, __ATOMIC_SEQ_CST);
}

/* xorshift, 32 bits (Marsaglia, "Xorshift RNGs", 2003). */
static unsigned draw(unsigned *state) {
  unsigned x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

/* Waits until what this processor sent to another has arrived. */
static void settle(unsigned self, unsigned to, unsigned lane) {
  uint64_t begin = rdtsc();
  while (received[to][self][lane] < sent[self][to][lane]) {
    if (rdtsc() - begin > PATIENCE) return;
    pause();
  }
}

/* Sleeps until the timer rings. */
static void nap(unsigned self, unsigned ticks) {
  unsigned before = rung[self];
  apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
  interrupts_off();
  apic_write(APIC_TIMER_INITIAL, ticks);
  while (rung[self] == before) wait_for_interrupt();
  interrupts_on();
}

/* Who gets an IPI, as a bit for each processor; and how it is sent. */
struct plan {
  unsigned targets;
  uint32_t to, command;
  int self_register;
};

static unsigned all(void) {
  return count == 32 ? ~0u : (1u << count) - 1;
}

static struct plan choose(unsigned self, unsigned *state) {
  unsigned kind = draw(state) % 16, other = draw(state) % count;
  struct plan plan = {.targets = 1u << other, .to = processors[other].id, .command = ICR_ASSERT};
  if (kind == 0) {
    plan.targets = all();
    plan.command |= ICR_ALL;
  } else if (kind == 1 && count > 1) {
    plan.targets = all() & ~(1u << self);
    plan.command |= ICR_OTHERS;
  } else if (kind == 2) {
    plan.targets = 1u << self;
    plan.command |= ICR_SELF;
  } else if (kind == 3 && x2) {
    plan.targets = 1u << self;
    plan.self_register = 1;
  } else if (kind <= 5 && (x2 || count <= 8)) {
    /* Logical: some of the first eight, or of the other's cluster of sixteen. */
    unsigned cluster = x2 ? processors[other].id >> 4 : 0, mask = 0;
    plan.targets = 0;
    for (unsigned k = 0; k < count; k++) {
      uint32_t id = processors[k].id;
      if (x2 && id >> 4 != cluster) continue;
      if (k != other && (draw(state) & 1)) continue;
      plan.targets |= 1u << k;
      mask |= 1u << (x2 ? id & 15 : k);
    }
    plan.to = cluster << 16 | mask;
    plan.command |= ICR_LOGICAL;
  }
  return plan;
}

static void send_one(unsigned self, unsigned *state, unsigned *left) {
  struct plan plan = choose(self, state);
  unsigned lane = draw(state) % LANES, vector = FIRST_VECTOR + self * LANES + lane;
  unsigned members = 0;
  for (unsigned k = 0; k < count; k++) members += plan.targets >> k & 1;
  /* No more than are left: to oneself, which is the least. */
  if (members > *left) {
    plan = (struct plan){.targets = 1u << self, .command = ICR_ASSERT | ICR_SELF};
  }
  for (unsigned k = 0; k < count; k++) {
    if (plan.targets >> k & 1) settle(self, k, lane);
  }
  for (unsigned k = 0; k < count; k++) {
    if (!(plan.targets >> k & 1)) continue;
    sent[self][k][lane]++;
    --*left;
  }
  if (plan.self_register) apic_write(APIC_SELF_IPI, vector);
  else apic_send(plan.to, plan.command | vector);
}

static void work(void) {
  unsigned self = smp_self(), left = share;
  unsigned state = (seed * 0x9e3779b9u) ^ ((self + 1) * 0x85ebca6bu);
  if (!state) state = 1;
  if (!x2 && count <= 8) apic_write(APIC_LDR, 1u << (24 + self));
  apic_write(APIC_TIMER_DIVIDE, 0xb);
  smp_barrier();
  interrupts_on();
  while (left) {
    send_one(self, &state, &left);
    if (naps && draw(&state) % 32 == 0) nap(self, 1000 + draw(&state) % 50000);
  }
  for (unsigned k = 0; k < count; k++) {
    for (unsigned lane = 0; lane < LANES; lane++) settle(self, k, lane);
  }
  /* Who is done sleeps, and is woken by what others still send, until the last is done. */
  interrupts_off();
  if (__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST) == count) {
    over = 1;
    apic_send(0, ICR_ASSERT | ICR_OTHERS | WAKE_VECTOR);
  }
  while (!over) wait_for_interrupt();
  interrupts_off();
  smp_barrier();
}

int main(void) {
  traps_init();
  ipi_handle(handle);
  count = smp_count();
  seed = (unsigned)argument_number("seed", 1);
  share = (unsigned)argument_number("ipis", 1000) / count;
  x2 = argument_present("x2apic");
  naps = argument_present("naps");
  if (x2 && !apic_has_x2()) {
    print("ipistorm: there is no x2APIC mode\n");
    return 2;
  }
  smp_run(count, x2, work);

  unsigned total = 0, arrived = 0, lost = 0, doubled = 0, digest = 0;
  for (unsigned from = 0; from < count; from++) {
    for (unsigned to = 0; to < count; to++) {
      for (unsigned lane = 0; lane < LANES; lane++) {
        unsigned s = sent[from][to][lane], r = received[to][from][lane];
        total += s;
        arrived += r;
        if (r < s) lost += s - r;
        if (r > s) doubled += r - s;
        digest = (digest ^ r) * 0x01000193u;
      }
    }
  }
  print("ipistorm: %u processors, %s, seed %u\n", count, x2 ? "x2APIC" : "xAPIC", seed);
  print("ipistorm: %u sent, %u received, %u lost, %u doubled, %u stray\n", total, arrived, lost,
        doubled, stray);
  print("ipistorm: digest %x\n", digest);
  return lost || doubled || stray;
}
