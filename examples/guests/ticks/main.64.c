/* Takes the interval timer's interrupts on both of a PC's ways: through the 8259s, whose output the
 * local APIC passes on, and through the I/O APIC. On each it waits in HLT for `ticks=` ticks of a
 * millisecond, and has the local APIC's timer say whether they were that long. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "io.h"
#include "pic.h"
#include "smp.h"
#include "traps.h"

#define PIT_TICK 0x40
#define PIT_CONTROL 0x43
#define PIT_PERIODIC 0x34     /* counter 0, both bytes, mode 2 */
#define PIT_SQUARE 0x36       /* ... mode 3 */
#define PIT_ONCE 0x30         /* ... mode 0 */
#define PIT_COUNT 1193        /* a millisecond */

#define IOAPIC 0xfec00000ul
#define IOAPIC_TIMER_PIN 2
#define IOAPIC_MASKED 0x10000

#define TICK_VECTOR 0x40
#define TIMER_LINE 0

static unsigned ticks;
static volatile unsigned seen;
static unsigned failed;

static void pic_tick(struct frame *frame) {
  (void)frame;
  seen++;
  pic_eoi(TIMER_LINE);
}

static void apic_tick(unsigned vector) {
  if (vector == TICK_VECTOR) seen++;
}

static void ioapic_write(unsigned index, uint32_t value) {
  *(volatile uint32_t *)IOAPIC = index;
  *(volatile uint32_t *)(IOAPIC + 0x10) = value;
}

static void pit_program(uint8_t control, uint16_t count) {
  outb(PIT_CONTROL, control);
  outb(PIT_TICK, (uint8_t)count);
  outb(PIT_TICK, (uint8_t)(count >> 8));
}

/* Local APIC cycles from one tick to another, `ticks` later. */
static uint32_t measure(void) {
  unsigned first = seen;
  while (seen == first) wait_for_interrupt();
  uint32_t begin = apic_read(APIC_TIMER_CURRENT);
  while (seen < first + 1 + ticks) wait_for_interrupt();
  return begin - apic_read(APIC_TIMER_CURRENT);
}

static void judge(const char *way, uint32_t got, uint32_t expected) {
  /* Twice or half as fast would be wrong; on a busy host in real time not all come when they are due. */
  uint32_t tolerance = expected / 5 * 2;
  int good = got + tolerance >= expected && got <= expected + tolerance;
  print("ticks: %s: %u ticks%s\n", way, ticks, good ? "" : " FAIL: too fast or too slow");
  if (!good) print("ticks: %u cycles, not %u\n", got, expected);
  failed |= !good;
}

int main(void) {
  traps_init();
  ipi_handle(apic_tick);
  trap_handle(VECTOR_IRQ_BASE + TIMER_LINE, pic_tick);
  pic_init(VECTOR_IRQ_BASE);
  ticks = (unsigned)argument_number("ticks", 20);
  apic_enable(argument_present("x2apic"));
  apic_write(APIC_LVT_TIMER, LVT_MASKED);
  apic_write(APIC_TIMER_DIVIDE, 0xb);
  apic_write(APIC_TIMER_INITIAL, 0xffffffff);

  /* How long a millisecond is: the square wave and the strobes must agree on it. */
  apic_write(APIC_LVT_LINT0, 0x700);
  pic_mask(TIMER_LINE, 0);
  pit_program(PIT_PERIODIC, PIT_COUNT);
  uint32_t expected = measure();
  print("ticks: 8259, mode 2: %u ticks\n", ticks);
  pit_program(PIT_SQUARE, PIT_COUNT);
  judge("8259, mode 3", measure(), expected);

  /* One alone. */
  pit_program(PIT_ONCE, PIT_COUNT);
  wait_for_interrupt();
  unsigned before = seen;
  for (unsigned k = 0; k < 1000; k++) interrupts_on();
  interrupts_off();
  print("ticks: 8259, mode 0: once%s\n", seen == before ? "" : " FAIL: again");
  failed |= seen != before;
  pic_mask(TIMER_LINE, 1);

  ioapic_write(0x11 + 2 * IOAPIC_TIMER_PIN, (uint32_t)apic_id() << 24);
  ioapic_write(0x10 + 2 * IOAPIC_TIMER_PIN, TICK_VECTOR);
  pit_program(PIT_PERIODIC, PIT_COUNT);
  judge("I/O APIC, mode 2", measure(), expected);
  ioapic_write(0x10 + 2 * IOAPIC_TIMER_PIN, IOAPIC_MASKED | TICK_VECTOR);
  before = seen;
  for (unsigned k = 0; k < 100000; k++) interrupts_on();
  interrupts_off();
  print("ticks: I/O APIC, masked: none%s\n", seen == before ? "" : " FAIL: still there");
  failed |= seen != before;
  return failed;
}
