/* R16-R31 of Intel APX as guests have them: does anybody else's value come up in them, and does a
 * hypervisor that reads one of them get the guest's? `cpus=` processors fill them with patterns of their
 * own and look at them `rounds=` times; `ipis=` IPIs go to the first itself, with ICR written from R20 by
 * WRMSRNS with an immediate; `switch` turns APX off in XCR0 and on again. Where CPUID has no APX, that is
 * all there is to say. */
#include "apic.h"
#include "arguments.h"
#include "console.h"
#include "cpu.h"
#include "smp.h"
#include "traps.h"

#define CPUID_XSAVE (1u << 26)  /* 1 ECX */
#define CPUID_APX (1u << 21)    /* (7,1) EDX */
#define CPUID_SKETCH (1u << 7)  /* where a patch that was posted has it */
#define CPUID_MSR_IMM (1u << 5) /* (7,1) ECX */
#define CR4_OSXSAVE (1ul << 18)
#define XCR0_X87_SSE 3
#define XCR0_APX (1u << 19)
#define VECTOR 0x51

void set_egprs(uint64_t value);
uint64_t check_egprs(uint64_t value, uint64_t rounds);
void write_icr(uint64_t value);
uint64_t read_apic_base(void);

static uint64_t rounds;
static unsigned count;
static volatile uint64_t differences[MAX_CPUS];
static volatile unsigned received;
static int failed;

static void xsetbv(uint32_t xcr0) {
  __asm__ volatile("xsetbv" : : "c"(0), "a"(xcr0), "d"(0) : "memory");
}

static void enable(void) {
  __asm__ volatile("mov %0, %%cr4" : : "r"(read_cr4() | CR4_OSXSAVE) : "memory");
  xsetbv(XCR0_X87_SSE | XCR0_APX);
}

static uint64_t pattern(unsigned index) { return 0x1111111111111100ul * (index + 1); }

static void work(void) {
  unsigned self = smp_self();
  if (self != 0) enable();
  smp_barrier();
  set_egprs(pattern(self));
  differences[self] = check_egprs(pattern(self), rounds);
  smp_barrier();
}

static void leak(int x2) {
  smp_run(count, x2, work);
  for (unsigned k = 0; k < count; k++) {
    print("egprs: processor %u: %s\n", k, differences[k] ? "FAIL: values of others" : "its own values");
    failed |= differences[k] != 0;
  }
}

static void handle(unsigned vector) { received += vector == VECTOR; }

static void ipis(unsigned wanted) {
  for (unsigned k = 0; k < wanted; k++) {
    write_icr(ICR_ASSERT | ICR_SELF | VECTOR);
    interrupts_on();
    interrupts_off();
  }
  apic_write(APIC_ESR, 0);
  print("egprs: %u of %u IPIs, APIC errors %x\n", received, wanted, apic_read(APIC_ESR));
  failed |= received != wanted;
  print("egprs: APIC base %s\n", read_apic_base() == rdmsr(MSR_APIC_BASE) ? "as RDMSR reads it" : "FAIL");
}

/* What is in the registers outlasts a time in which they cannot be used. */
static void off_and_on(void) {
  set_egprs(pattern(7));
  xsetbv(XCR0_X87_SSE);
  int vector = attempt(set_egprs, 0, 0);
  xsetbv(XCR0_X87_SSE | XCR0_APX);
  uint64_t differs = check_egprs(pattern(7), 1);
  print("egprs: switched off: %s\n", vector == VECTOR_UD ? "undefined" : "FAIL: they can be used");
  print("egprs: on again: %s\n", differs ? "FAIL: other values" : "the same values");
  failed |= vector != VECTOR_UD || differs != 0;
}

int main(void) {
  traps_init();
  ipi_handle(handle);
  count = smp_count();
  rounds = argument_number("rounds", 1000);
  unsigned wanted = (unsigned)argument_number("ipis", 0);
  struct cpuid features = cpuid(7, 1);
  print("cpu: CPUID (7,1) EDX[21] %u, EDX[7] %u\n", (features.edx & CPUID_APX) != 0,
        (features.edx & CPUID_SKETCH) != 0);
  if (!(cpuid(1, 0).ecx & CPUID_XSAVE) || !(features.edx & CPUID_APX)) {
    print("cpu: there is no APX\n");
    print("egprs: end\n");
    return 0;
  }
  enable();
  if (argument_present("switch")) off_and_on();
  if (wanted && features.ecx & CPUID_MSR_IMM) {
    apic_enable(1);
    ipis(wanted);
  }
  if (argument_present("leak")) leak(wanted != 0);
  print("egprs: end\n");
  return failed;
}
