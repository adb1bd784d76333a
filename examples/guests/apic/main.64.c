/* Programs its local APIC through every register that software may write, reads every one that it may
 * read, takes timer interrupts and sends IPIs: what a hypervisor sees of a kernel's APIC driver, many
 * times over. Every processor does the same. `rounds=` is how often, `x2apic` the mode, `cpus=` the
 * number of processors. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "smp.h"
#include "traps.h"

#define SELF_VECTOR 0x41
#define IPI_VECTOR 0x51
#define TIMER_VECTOR 0x61
#define MSR_X2APIC 0x800

static unsigned count, rounds;
static int x2;

static struct {
  volatile unsigned self, ipi, timer; /* interrupts received */
  unsigned checks, failed;
} tally[MAX_CPUS];

static void handle(unsigned vector) {
  unsigned self = smp_self();
  if (vector == SELF_VECTOR) tally[self].self++;
  else if (vector == IPI_VECTOR) tally[self].ipi++;
  else if (vector == TIMER_VECTOR) tally[self].timer++;
}

static spinlock console;

static void check(unsigned offset, uint64_t got, uint64_t expected) {
  unsigned self = smp_self();
  tally[self].checks++;
  if (got == expected) return;
  tally[self].failed++;
  lock(&console);
  print("apic: processor %u register %x: %lx, not %lx\n", self, offset, got, expected);
  unlock(&console);
}

/* Writes a register and looks whether it keeps the value. */
static void keep(unsigned offset, uint32_t value) {
  apic_write(offset, value);
  check(offset, apic_read(offset), value);
}

static unsigned long read_cr8(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr8, %0" : "=r"(value) : : "memory");
  return value;
}
static void write_cr8(unsigned long value) {
  __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

/* Registers that hold what is written. */
static void program(unsigned round) {
  static const uint16_t entries[] = {APIC_LVT_THERMAL, APIC_LVT_PERF, APIC_LVT_LINT0,
                                     APIC_LVT_LINT1, APIC_LVT_ERROR};
  uint32_t vector = 0x70 + (round & 7);
  keep(APIC_SVR, SVR_ENABLE | 0xf0 | (round & 15));
  for (unsigned k = 0; k < sizeof entries / sizeof entries[0]; k++) {
    keep(entries[k], LVT_MASKED | (vector + k));
  }
  keep(APIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC | vector);
  keep(APIC_TIMER_DIVIDE, 0xa);
  keep(APIC_TIMER_DIVIDE, 0xb);
  apic_write(APIC_ESR, 0);
  check(APIC_ESR, apic_read(APIC_ESR), 0);
  if (x2) return;
  keep(APIC_ICR_HIGH, round << 24);
  keep(APIC_DFR, 0x0fffffff);
  keep(APIC_DFR, 0xffffffff);
  keep(APIC_LDR, 1u << (24 + (smp_self() & 7)));
}

/* Registers that only show something. */
static void look(void) {
  unsigned self = smp_self();
  uint32_t id = processors[self].id;
  check(APIC_ID, apic_id(), id);
  check(APIC_VERSION, apic_read(APIC_VERSION) >> 16 & 0xff, 5);
  for (unsigned k = 0; k < 8; k++) {
    check(APIC_ISR, apic_read(APIC_ISR + 16 * k), 0);
    apic_read(APIC_TMR + 16 * k);
    check(APIC_IRR, apic_read(APIC_IRR + 16 * k), 0);
  }
  if (!x2) return;
  check(APIC_LDR, apic_read(APIC_LDR), (id >> 4) << 16 | 1u << (id & 15));
}

/* The task priority holds interrupts back, as the register and as CR8. */
static void priorities(void) {
  unsigned self = smp_self(), before = tally[self].self;
  interrupts_on();
  keep(APIC_TPR, 0x4f);
  check(APIC_PPR, apic_read(APIC_PPR), 0x4f);
  check(8, read_cr8(), 4);
  apic_send(0, ICR_ASSERT | ICR_SELF | SELF_VECTOR);
  check(APIC_IRR, apic_read(APIC_IRR + 0x20), 1u << (SELF_VECTOR & 31));
  check(APIC_SELF_IPI, tally[self].self, before);
  write_cr8(3);
  __asm__ volatile("nop");
  check(APIC_SELF_IPI, tally[self].self, before + 1);
  check(APIC_TPR, apic_read(APIC_TPR), 0x30);
  write_cr8(15);
  apic_send(0, ICR_ASSERT | ICR_SELF | SELF_VECTOR);
  check(APIC_PPR, apic_read(APIC_PPR), 0xf0);
  check(APIC_SELF_IPI, tally[self].self, before + 1);
  keep(APIC_TPR, 0);
  __asm__ volatile("nop");
  check(APIC_SELF_IPI, tally[self].self, before + 2);
  check(8, read_cr8(), 0);
  if (x2) {
    apic_write(APIC_SELF_IPI, SELF_VECTOR);
    __asm__ volatile("nop");
    check(APIC_SELF_IPI, tally[self].self, before + 3);
  }
  interrupts_off();
}

/* One-shot, then three periods, each waited for in HLT. */
static void timer(void) {
  unsigned self = smp_self(), before = tally[self].timer;
  apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
  apic_write(APIC_TIMER_INITIAL, 20000);
  uint32_t first = apic_read(APIC_TIMER_CURRENT), second = apic_read(APIC_TIMER_CURRENT);
  check(APIC_TIMER_CURRENT, first <= 20000 && second <= first, 1);
  while (tally[self].timer == before) wait_for_interrupt();
  check(APIC_TIMER_CURRENT, apic_read(APIC_TIMER_CURRENT), 0);
  apic_write(APIC_LVT_TIMER, LVT_PERIODIC | TIMER_VECTOR);
  apic_write(APIC_TIMER_INITIAL, 30000);
  check(APIC_TIMER_INITIAL, apic_read(APIC_TIMER_INITIAL), 30000);
  while (tally[self].timer < before + 4) wait_for_interrupt();
  apic_write(APIC_TIMER_INITIAL, 0);
  apic_write(APIC_LVT_TIMER, LVT_MASKED | TIMER_VECTOR);
  /* One that was on its way. */
  interrupts_on();
  interrupts_off();
}

/* Everybody sends the next one an IPI and waits for its own. */
static void neighbours(unsigned round) {
  unsigned self = smp_self();
  smp_barrier(); /* nobody looks at IRR any more */
  apic_send(processors[(self + 1) % count].id, ICR_ASSERT | IPI_VECTOR);
  while (tally[self].ipi <= round) wait_for_interrupt();
  smp_barrier();
  check(APIC_ICR, tally[self].ipi, round + 1);
  smp_barrier();
}

static void work(void) {
  smp_barrier();
  for (unsigned round = 0; round < rounds; round++) {
    program(round);
    look();
    priorities();
    timer();
    neighbours(round);
  }
  smp_barrier();
}

int main(void) {
  traps_init();
  ipi_handle(handle);
  count = smp_count();
  rounds = (unsigned)argument_number("rounds", 10);
  x2 = argument_present("x2apic");
  if (x2 && !apic_has_x2()) {
    print("apic: there is no x2APIC mode\n");
    return 2;
  }
  smp_run(count, x2, work);

  unsigned failed = 0;
  for (unsigned k = 0; k < count; k++) {
    print("apic: processor %u: %u checks, %u failed; %u self IPIs, %u IPIs\n", k, tally[k].checks,
          tally[k].failed, tally[k].self, tally[k].ipi);
    failed += tally[k].failed;
  }
  return failed != 0;
}
