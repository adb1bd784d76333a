#include "smp.h"

#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "exit.h"
#include "pic.h"
#include "selectors.h"
#include "string.h"
#include "traps.h"

#define TRAMPOLINE 0x8000 /* a page below 1 MiB, clear of LOW_MEMORY */
#define FIRST_IPI 0x30
#define STUB_SIZE 16
#define GATE_INTERRUPT 0x8e
#define TOPOLOGY 0xb
#define PATIENCE 20000000000ull /* ticks until a processor that is missing is given up */

extern const uint8_t trampoline[], trampoline_end[]; /* ap.S */
extern const uint8_t ipi_stubs[];

struct processor processors[MAX_CPUS];

static volatile unsigned started;
static unsigned count;
static int x2_mode;
static void (*job)(void);
static void (*ipi_handler)(unsigned vector);

unsigned smp_count(void) {
  unsigned n = 1;
  if (cpuid(0, 0).eax >= TOPOLOGY) {
    unsigned cores = cpuid(TOPOLOGY, 1).ebx & 0xffff;
    if (cores) n = cores;
  }
  n = (unsigned)argument_number("cpus", n);
  if (n < 1 || n > MAX_CPUS) {
    print("smp: %u processors are none or too many\n", n);
    guest_exit(2);
  }
  return n;
}

static void come_up(unsigned index) {
  struct processor *self = &processors[index];
  wrmsr(MSR_GS_BASE, (uint64_t)self);
  apic_enable(x2_mode);
  self->index = index;
  self->id = apic_id();
}

/* Called by ap.S with a number of its own, from 1 on. */
void ap_main(unsigned index) {
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) pointer = {sizeof idt - 1, (uint64_t)idt};
  __asm__ volatile("lidt %0" : : "m"(pointer));
  come_up(index);
  __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
  while (started < count) pause();
  job();
  for (;;) __asm__ volatile("cli; hlt");
}

void smp_run(unsigned n, int x2, void (*work)(void)) {
  count = n;
  x2_mode = x2;
  job = work;
  pic_init(VECTOR_IRQ_BASE); /* firmware may have left the timer's line open */
  come_up(0);
  memcpy((void *)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
  started = 1;
  if (n > 1) {
    apic_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT);
    apic_send(0, ICR_OTHERS | ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
  }
  uint64_t begin = rdtsc();
  while (started < count) {
    if (rdtsc() - begin > PATIENCE) {
      print("smp: %u of %u processors are there\n", started, count);
      guest_exit(2);
    }
    pause();
  }
  work();
}

void smp_barrier(void) {
  static volatile unsigned arrived, round;
  unsigned mine = round;
  if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == count) {
    arrived = 0;
    round = mine + 1;
    return;
  }
  while (round == mine) pause();
}

void lock(spinlock *lock) {
  while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) {
    while (*lock) pause();
  }
}

void unlock(spinlock *lock) {
  __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* Called by ap.S. */
void ipi(unsigned vector) {
  ipi_handler(vector);
  apic_eoi();
}

void ipi_handle(void (*handler)(unsigned vector)) {
  ipi_handler = handler;
  for (unsigned v = FIRST_IPI; v < 256; v++) {
    uint64_t offset = (uint64_t)ipi_stubs + (v - FIRST_IPI) * STUB_SIZE;
    idt[v] = (struct gate){
        .offset_low = (uint16_t)offset,
        .selector = SEL_CODE64,
        .type = GATE_INTERRUPT,
        .offset_middle = (uint16_t)(offset >> 16),
        .offset_high = (uint32_t)(offset >> 32),
    };
  }
}
