/* Starts every processor and has them work together: each finds out who it is, they meet at a barrier,
 * count with atomic instructions and under a lock, and each sends the next one an IPI that it waits for
 * in HLT. `cpus=` is their number, `rounds=` how often each counts, and `x2apic` the mode. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "smp.h"
#include "traps.h"

#define TOKEN 0x40

static unsigned count, rounds;
static int x2;
static volatile unsigned atomic_counter, locked_counter;
static spinlock counter_lock;
static volatile unsigned tokens[MAX_CPUS];
static volatile unsigned ids[MAX_CPUS]; /* how often each APIC ID was seen */
static volatile unsigned wrong;

static void received(unsigned vector) {
  if (vector == TOKEN) tokens[smp_self()]++;
}

/* The processor that has the APIC ID after this one's. */
static uint32_t next_id(void) {
  return (processors[smp_self()].id + 1) % count;
}

static void work(void) {
  unsigned self = smp_self();
  uint32_t id = processors[self].id;
  uint32_t initial = x2 ? cpuid(0xb, 0).edx : cpuid(1, 0).ebx >> 24;
  if (id != initial || id >= MAX_CPUS) __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
  else __atomic_add_fetch(&ids[id], 1, __ATOMIC_SEQ_CST);
  smp_barrier();

  for (unsigned k = 0; k < rounds; k++) __atomic_add_fetch(&atomic_counter, 1, __ATOMIC_SEQ_CST);
  for (unsigned k = 0; k < rounds; k++) {
    lock(&counter_lock);
    locked_counter = locked_counter + 1;
    unlock(&counter_lock);
  }
  smp_barrier();

  /* A token goes round twice: from the first to the second, ... and back. */
  for (unsigned lap = 1; lap <= 2; lap++) {
    if (id == 0) apic_send(next_id(), ICR_ASSERT | TOKEN);
    interrupts_off();
    while (tokens[self] < lap) wait_for_interrupt();
    if (id != 0) apic_send(next_id(), ICR_ASSERT | TOKEN);
  }
  smp_barrier();
}

int main(void) {
  traps_init();
  ipi_handle(received);
  count = smp_count();
  rounds = (unsigned)argument_number("rounds", 1000);
  x2 = argument_present("x2apic");
  if (x2 && !apic_has_x2()) {
    print("smp: there is no x2APIC mode\n");
    return 2;
  }
  smp_run(count, x2, work);

  int failed = wrong != 0;
  for (unsigned id = 0; id < count; id++) failed |= ids[id] != 1;
  print("smp: %u processors, %s, APIC IDs %s\n", count, x2 ? "x2APIC" : "xAPIC",
        failed ? "FAIL: not each once" : "each once");
  unsigned expected = count * rounds, passed = 0;
  print("smp: atomic counter %u%s\n", atomic_counter, atomic_counter == expected ? "" : " FAIL");
  print("smp: locked counter %u%s\n", locked_counter, locked_counter == expected ? "" : " FAIL");
  for (unsigned k = 0; k < count; k++) passed += tokens[k];
  print("smp: token passed %u times%s\n", passed, passed == 2 * count ? "" : " FAIL");
  failed |= atomic_counter != expected || locked_counter != expected || passed != 2 * count;
  return failed;
}
