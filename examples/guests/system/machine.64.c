#include "machine.h"

#include "cpu.h"
#include "paging.h"
#include "selectors.h"
#include "traps.h"

#define GATE_INTERRUPT 0x8e
#define DPL3 0x60
#define ENTRIES 512
#define ADDRESS_BITS 0x000ffffffffff000ull

/* One PML4 entry holds nothing but the window, so that an address space is a PML4 and three tables. */
#define WINDOW 0x10000000000ul

extern uint64_t pml4[ENTRIES];

volatile uint8_t *const window = (volatile uint8_t *)WINDOW;

static uint64_t roots[SPACES][ENTRIES] __attribute__((aligned(4096)));
static uint64_t tables[SPACES][3][ENTRIES] __attribute__((aligned(4096)));

/* What GS points at in the kernel: the stack for SYSCALL, and room for the user's. */
uint64_t processor_area[2];

static void set_gate(unsigned vector, const uint8_t *to, uint8_t type) {
  uint64_t offset = (uint64_t)to;
  idt[vector] = (struct gate){
      .offset_low = (uint16_t)offset,
      .selector = SEL_CODE64,
      .type = type,
      .offset_middle = (uint16_t)(offset >> 16),
      .offset_high = (uint32_t)(offset >> 32),
  };
}

static void allow_users(void) {
  pml4[0] |= PTE_USER;
  uint64_t *pdpt = (uint64_t *)(pml4[0] & ADDRESS_BITS);
  for (unsigned i = 0; i < ENTRIES; i++) {
    if (!(pdpt[i] & PTE_PRESENT)) continue;
    pdpt[i] |= PTE_USER;
    uint64_t *directory = (uint64_t *)(pdpt[i] & ADDRESS_BITS);
    for (unsigned k = 0; k < ENTRIES; k++) directory[k] |= PTE_USER;
  }
}

void machine_init(void) {
  allow_users();
  for (unsigned s = 0; s < SPACES; s++) {
    const uint64_t rights = PTE_PRESENT | PTE_WRITE | PTE_USER;
    roots[s][0] = pml4[0];
    roots[s][WINDOW >> 39] = (uint64_t)tables[s][0] | rights;
    tables[s][0][0] = (uint64_t)tables[s][1] | rights;
    tables[s][1][0] = (uint64_t)tables[s][2] | rights;
  }
  write_cr3(space_root(0));
  set_gate(VECTOR_CALL, entry_gate, GATE_INTERRUPT | DPL3);
  set_gate(VECTOR_PF, entry_fault, GATE_INTERRUPT);
  set_gate(VECTOR_INTERRUPT, entry_interrupt, GATE_INTERRUPT);
  wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
  wrmsr(MSR_STAR, (uint64_t)SEL_CODE64 << 32 | (uint64_t)(SEL_USER_CODE32 | 3) << 48);
  wrmsr(MSR_LSTAR, (uint64_t)entry_fast);
  wrmsr(MSR_SFMASK, RFLAGS_IF | RFLAGS_DF);
  wrmsr(MSR_GS_BASE, (uint64_t)processor_area);
  wrmsr(MSR_KERNEL_GS_BASE, 0);
}

entry *window_entry(unsigned space, unsigned page) {
  return tables[space][2] + page;
}

unsigned long space_root(unsigned space) {
  return (unsigned long)roots[space];
}
