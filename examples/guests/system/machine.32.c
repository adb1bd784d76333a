#include "machine.h"

#include "cpu.h"
#include "selectors.h"

#define GATE_INTERRUPT 0x8e
#define DPL3 0x60
#define TSS_AVAILABLE 0x89
#define VECTOR_PF 14
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_EIP 0x176
#define ENTRIES 1024
#define PRESENT_WRITE_USER 7
#define LARGE 0x80
#define UNCACHED 0x10

/* The window's 4 MiB, apart from what is mapped one to one: the first 64 MiB, and the local APIC's. */
#define WINDOW 0x40000000ul
#define MAPPED 16
#define APIC 0xfee00000ul

volatile uint8_t *const window = (volatile uint8_t *)WINDOW;

static uint32_t roots[SPACES][ENTRIES] __attribute__((aligned(4096)));
static uint32_t tables[SPACES][ENTRIES] __attribute__((aligned(4096)));
static uint64_t idt32[256] __attribute__((aligned(16)));

/* A 32-bit task-state segment (AMD APM volume 2, 12.2.4), for the stack of ring 0. */
struct tss32 {
  uint32_t link, esp0, ss0, others[22];
  uint16_t trap, io_map_base;
} tss32;

static void set_gate(unsigned vector, const uint8_t *to, uint8_t type) {
  uint32_t offset = (uint32_t)to;
  idt32[vector] = (uint64_t)(offset & 0xffff0000u) << 32 | (uint64_t)type << 40 |
                  (uint32_t)SEL_CODE32 << 16 | (offset & 0xffff);
}

static void load_tables(void) {
  struct {
    uint16_t limit;
    uint32_t base;
  } __attribute__((packed)) pointer = {sizeof idt32 - 1, (uint32_t)idt32}, gdt;
  uint32_t base = (uint32_t)&tss32;
  __asm__ volatile("sgdt %0" : "=m"(gdt));
  tss32.ss0 = SEL_DATA;
  tss32.io_map_base = sizeof tss32;
  ((uint64_t *)gdt.base)[SEL_TSS / 8] = (sizeof tss32 - 1) | (uint64_t)(base & 0xffffff) << 16 |
                     (uint64_t)TSS_AVAILABLE << 40 | (uint64_t)(base >> 24) << 56;
  __asm__ volatile("lidt %0" : : "m"(pointer));
  __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
}

void machine_init(void) {
  for (unsigned s = 0; s < SPACES; s++) {
    for (uint32_t i = 0; i < MAPPED; i++) roots[s][i] = i << 22 | LARGE | PRESENT_WRITE_USER;
    roots[s][APIC >> 22] = (APIC & 0xffc00000) | LARGE | UNCACHED | PRESENT_WRITE_USER;
    roots[s][WINDOW >> 22] = (uint32_t)tables[s] | PRESENT_WRITE_USER;
  }
  set_gate(VECTOR_CALL, entry_gate, GATE_INTERRUPT | DPL3);
  set_gate(VECTOR_PF, entry_fault, GATE_INTERRUPT);
  set_gate(VECTOR_INTERRUPT, entry_interrupt, GATE_INTERRUPT);
  load_tables();
  wrmsr(MSR_SYSENTER_CS, SEL_CODE64); /* only the selectors count, not what the descriptors say */
  wrmsr(MSR_SYSENTER_EIP, (uint32_t)entry_fast);
  write_cr4(read_cr4() | CR4_PSE);
  write_cr3(space_root(0));
  write_cr0(read_cr0() | CR0_PG);
}

void machine_leave(void) {
  write_cr0(read_cr0() & ~CR0_PG);
}

entry *window_entry(unsigned space, unsigned page) {
  return (entry *)(tables[space] + page);
}

unsigned long space_root(unsigned space) {
  return (unsigned long)roots[space];
}
