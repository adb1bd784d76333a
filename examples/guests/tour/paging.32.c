/* Paging with 32-bit code: legacy, PAE, and long mode's compatibility mode, each switched on and off
 * again. All three map memory one to one and one window elsewhere. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "tour32.h"

#define PAGE 4096
#define PRESENT_WRITE 3
#define LARGE 0x80
#define WINDOW 0x40003000u /* a linear address in the second GiB */

extern uint8_t pml4[]; /* lib/start.S: 4 GiB one to one */

static uint32_t legacy_directory[1024] __attribute__((aligned(PAGE)));
static uint32_t legacy_table[1024] __attribute__((aligned(PAGE)));
static uint64_t pae_pointers[4] __attribute__((aligned(32)));
static uint64_t pae_directories[2][512] __attribute__((aligned(PAGE)));
static uint64_t pae_table[512] __attribute__((aligned(PAGE)));
static uint32_t first_page[PAGE / 4] __attribute__((aligned(PAGE)));
static uint32_t second_page[PAGE / 4] __attribute__((aligned(PAGE)));

static void paging_on(uint32_t cr3, uint32_t cr4) {
  write_cr4(read_cr4() | cr4);
  write_cr3(cr3);
  write_cr0(read_cr0() | CR0_PG);
}

static void paging_off(uint32_t cr4) {
  write_cr0(read_cr0() & ~CR0_PG);
  write_cr4(read_cr4() & ~cr4);
}

/* Looks through the window at one page, then, its entry's low half changed, at the other. */
static void look_through(volatile uint32_t *entry) {
  volatile uint32_t *window = (volatile uint32_t *)WINDOW;
  *entry = (uint32_t)first_page | PRESENT_WRITE;
  first_page[5] = 0x11111111;
  second_page[5] = 0x22222222;
  __asm__ volatile("invlpg (%0)" : : "r"(window) : "memory");
  check_equal("window on the first page", window[5], 0x11111111);
  *entry = (uint32_t)second_page | PRESENT_WRITE;
  __asm__ volatile("invlpg (%0)" : : "r"(window) : "memory");
  check_equal("window on the second page", window[5], 0x22222222);
  window[6] = 0x33333333;
  check_equal("written through the window", *(volatile uint32_t *)&second_page[6], 0x33333333);
  check((*entry & 0x60) == 0x60, "accessed and dirty bits set in its entry");
}

void visit_legacy_paging(void) {
  for (uint32_t i = 0; i < 256; i++) legacy_directory[i] = i << 22 | PRESENT_WRITE | LARGE;
  legacy_directory[WINDOW >> 22] = (uint32_t)legacy_table | PRESENT_WRITE;
  paging_on((uint32_t)legacy_directory, CR4_PSE);
  print("mode: protected, 32-bit, legacy paging\n");
  check(read_cr0() & CR0_PG, "CR0.PG set");
  look_through(&legacy_table[WINDOW >> 12 & 1023]);
  paging_off(CR4_PSE);
}

void visit_pae_paging(void) {
  uint64_t *window = &pae_table[WINDOW >> 12 & 511];
  for (uint32_t i = 0; i < 512; i++) pae_directories[0][i] = i << 21 | PRESENT_WRITE | LARGE;
  pae_directories[1][WINDOW >> 21 & 511] = (uint32_t)pae_table | PRESENT_WRITE;
  for (uint32_t i = 0; i < 2; i++) pae_pointers[i] = (uint32_t)pae_directories[i] | 1;
  paging_on((uint32_t)pae_pointers, CR4_PAE);
  print("mode: protected, 32-bit, PAE paging\n");
  check(read_cr4() & CR4_PAE, "CR4.PAE set");
  look_through((volatile uint32_t *)window);
  paging_off(CR4_PAE);
}

/* The opcode 40h is INC EAX to 32-bit code, and a REX prefix that does nothing to 64-bit code. */
static uint32_t increment(uint32_t value) {
  __asm__(".byte 0x40; nop" : "+a"(value));
  return value;
}

void visit_compatibility(void) {
  wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_LME);
  check(!(rdmsr(MSR_EFER) & EFER_LMA), "EFER.LMA clear before paging");
  paging_on((uint32_t)pml4, CR4_PAE);
  print("mode: long, compatibility\n");
  check(rdmsr(MSR_EFER) & EFER_LMA, "EFER.LMA set by paging");
  check_equal("opcode 40h increments", increment(0x41), 0x42);
  paging_off(0);
  check(!(rdmsr(MSR_EFER) & EFER_LMA), "EFER.LMA clear after paging");
  wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_LME);
  write_cr4(read_cr4() & ~CR4_PAE);
}

/* Called from 64-bit code by way of SEL_CODE32 (compat.S). */
uint32_t compatibility_call(uint32_t value) {
  print("mode: long, compatibility, called from 64-bit\n");
  return increment(value);
}
