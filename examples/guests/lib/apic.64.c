#include "apic.h"

#include "cpu.h"

#define BASE 0xfee00000u
#define MSR_X2APIC 0x800
#define CPUID_X2APIC (1u << 21)
#define SPURIOUS 0xff

int apic_has_x2(void) {
  return (cpuid(1, 0).ecx & CPUID_X2APIC) != 0;
}

int apic_is_x2(void) {
  return (rdmsr(MSR_APIC_BASE) & APIC_BASE_X2) != 0;
}

/* Every processor is in the same mode, so one asks once. */
static int x2_mode;

void apic_enable(int x2) {
  uint64_t base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;
  wrmsr(MSR_APIC_BASE, base);
  if (x2) wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2);
  x2_mode = x2;
  apic_write(APIC_SVR, SVR_ENABLE | SPURIOUS);
}

uint32_t apic_read(unsigned offset) {
  if (x2_mode) return (uint32_t)rdmsr(MSR_X2APIC + (offset >> 4));
  return *(volatile uint32_t *)(uintptr_t)(BASE + offset);
}

void apic_write(unsigned offset, uint32_t value) {
  if (x2_mode) wrmsr(MSR_X2APIC + (offset >> 4), value);
  else *(volatile uint32_t *)(uintptr_t)(BASE + offset) = value;
}

uint32_t apic_id(void) {
  uint32_t id = apic_read(APIC_ID);
  return x2_mode ? id : id >> 24;
}

void apic_send(uint32_t to, uint32_t command) {
  if (x2_mode) {
    wrmsr(MSR_X2APIC + (APIC_ICR >> 4), (uint64_t)to << 32 | command);
    return;
  }
  /* An interrupt between the two halves could send another. */
  unsigned long flags;
  __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
  apic_write(APIC_ICR_HIGH, to << 24);
  apic_write(APIC_ICR, command);
  if (flags & RFLAGS_IF) __asm__ volatile("sti" : : : "memory");
}
