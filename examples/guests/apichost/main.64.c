/* What a host does to a guest's local APIC, and what the guest sees of it. The host listens at two
 * ports: a byte to E8h makes it keep interrupts from being accelerated (1) or lets them be (0), as a
 * debugger does that blocks them; a byte to E9h becomes the task priority, as when a saved state is
 * loaded. Where there is no such host, nothing happens.
 *
 * `cr8=` writes CR8 so often behind a spell without acceleration in which an interrupt waited for it;
 * `restore` has the host load a task priority; `switch` goes from xAPIC to x2APIC mode and looks at the
 * place where the registers were; `late` begins without acceleration and has it from then on; `pending=`
 * halts so often while an interrupt waits already; `serving` has acceleration begin in the handler of an
 * interrupt that was taken without. Without a word it is `cr8=10`. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "io.h"
#include "smp.h"
#include "traps.h"

#define PORT_INHIBIT 0xe8
#define PORT_TPR 0xe9
#define VECTOR 0x41
#define XAPIC_PAGE 0xfee00000ul

static volatile unsigned received;
static int failed;

static int accelerate_in_handler;

static void handle(unsigned vector) {
  received += vector == VECTOR;
  if (!accelerate_in_handler) return;
  accelerate_in_handler = 0;
  outb(PORT_INHIBIT, 0);
}

static unsigned long read_cr8(void) {
  unsigned long value;
  __asm__ volatile("mov %%cr8, %0" : "=r"(value) : : "memory");
  return value;
}
static void write_cr8(unsigned long value) {
  __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

static void check(const char *what, uint64_t got, uint64_t expected) {
  print("apichost: %s %lx", what, got);
  if (got != expected) {
    print(", not %lx", expected);
    failed = 1;
  }
  print("\n");
}

static void send_self(void) { apic_send(0, ICR_ASSERT | ICR_SELF | VECTOR); }

/* An IPI waits for the task priority while the host keeps acceleration off; then it is on again, and
 * only then the IPI is let in. */
static void task_priority(uint64_t writes) {
  unsigned before = received;
  interrupts_on();
  outb(PORT_INHIBIT, 1);
  write_cr8(15);
  send_self();
  outb(PORT_INHIBIT, 0);
  check("held back", received - before, 0);
  for (uint64_t k = 0; k < writes; k++) write_cr8(15 - (k & 7));
  write_cr8(0);
  __asm__ volatile("nop");
  check("let in", received - before, 1);
  check("cr8", read_cr8(), 0);
  interrupts_off();
}

/* The host loads a task priority of 0 over the guest's 15. */
static void restore(void) {
  unsigned before = received;
  interrupts_on();
  write_cr8(15);
  send_self();
  outb(PORT_TPR, 0);
  __asm__ volatile("nop");
  check("restored: received", received - before, 1);
  check("restored: cr8", read_cr8(), 0);
  check("restored: tpr", apic_read(APIC_TPR), 0);
  write_cr8(0);
  __asm__ volatile("nop");
  interrupts_off();
}

/* In x2APIC mode there is nothing of the APIC's in memory any more. */
static void switch_mode(void) {
  volatile const uint32_t *version = (volatile const uint32_t *)(XAPIC_PAGE + APIC_VERSION);
  if (apic_is_x2() || !apic_has_x2()) return;
  check("xAPIC version", *version & 0xff, apic_read(APIC_VERSION) & 0xff);
  apic_enable(1);
  check("x2APIC version", apic_read(APIC_VERSION) & 0xff, 0x10);
  uint32_t there = *version;
  check("still in memory", there == apic_read(APIC_VERSION), 0);
}

static void late(void) {
  unsigned before = received;
  outb(PORT_INHIBIT, 0);
  interrupts_on();
  for (unsigned k = 0; k < 10; k++) send_self();
  __asm__ volatile("nop");
  interrupts_off();
  check("late: received", received > before, 1);
}

/* STI and HLT with an interrupt that came while interrupts were off: it ends the halt at once. */
static void pending(uint64_t rounds) {
  unsigned before = received;
  for (uint64_t k = 0; k < rounds; k++) {
    send_self();
    wait_for_interrupt();
  }
  check("pending: received", received - before, rounds);
}

/* The handler's EOI has to end the interrupt that it was called for, or no other of its class gets in. */
static void serving(void) {
  unsigned before = received;
  interrupts_on();
  outb(PORT_INHIBIT, 1);
  accelerate_in_handler = 1;
  send_self();
  __asm__ volatile("nop");
  check("serving: received", received - before, 1);
  check("serving: in service", apic_read(APIC_ISR + (VECTOR >> 5) * 16), 0);
  send_self();
  __asm__ volatile("nop");
  check("serving: again", received - before, 2);
  interrupts_off();
}

int main(void) {
  traps_init();
  ipi_handle(handle);
  int alone = !argument_present("cr8") && !argument_present("restore") &&
              !argument_present("switch") && !argument_present("late") &&
              !argument_present("pending") && !argument_present("serving");
  apic_enable(argument_present("x2apic"));
  uint64_t writes = argument_number("cr8", alone ? 10 : 0);
  if (writes) task_priority(writes);
  if (argument_present("restore")) restore();
  if (argument_present("late")) late();
  uint64_t halts = argument_number("pending", 0);
  if (halts) pending(halts);
  if (argument_present("serving")) serving();
  if (argument_present("switch")) switch_mode();
  print("apichost: end\n");
  return failed;
}
