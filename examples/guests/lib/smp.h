/* Several processors: starting them, telling them apart, and what they need to work together. */
#ifndef SMP_H
#define SMP_H
#include <stdint.h>

#define MAX_CPUS 32

/* One processor. GS points at its own. */
struct processor {
  unsigned index; /* 0 for the first, then in the order in which they came up */
  uint32_t id;    /* APIC ID */
};
extern struct processor processors[MAX_CPUS];

/* How many processors there are: `cpus=` on the command line, else what CPUID leaf 0Bh says, else 1. */
unsigned smp_count(void);

/* Starts all the others with INIT and start-up IPIs and waits until all `count` are there. Each then
 * calls work(), the first too, and when it returns from there the others halt for good. The IDT of
 * traps_init() is everybody's. The APICs are enabled, in x2APIC mode if asked for. */
void smp_run(unsigned count, int x2, void (*work)(void));

/* This processor's number. */
static inline unsigned smp_self(void) {
  unsigned index;
  __asm__ volatile("movl %%gs:0, %0" : "=r"(index));
  return index;
}

/* Waits until all of smp_run() have called it as often as this one; spins. */
void smp_barrier(void);

static inline void pause(void) {
  __asm__ volatile("pause" : : : "memory");
}
static inline void interrupts_on(void) {
  __asm__ volatile("sti; nop" : : : "memory");
}
static inline void interrupts_off(void) {
  __asm__ volatile("cli" : : : "memory");
}
/* With interrupts off: waits for one, and takes it. */
static inline void wait_for_interrupt(void) {
  __asm__ volatile("sti; hlt; cli" : : : "memory");
}

typedef volatile unsigned spinlock;
void lock(spinlock *lock);
void unlock(spinlock *lock);

/* Gives vectors 30h to FFh to one handler, which also ends the interrupt. It is called with interrupts
 * off. */
void ipi_handle(void (*handler)(unsigned vector));

#endif
