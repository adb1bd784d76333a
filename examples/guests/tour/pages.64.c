/* Page faults and paging rights in 64-bit mode. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "paging.h"
#include "provoke.h"
#include "string.h"
#include "tour64.h"
#include "traps.h"

/* Linear addresses outside the one-to-one map. */
#define DEMAND 0x0000008040000000ul /* pages appear when touched */
#define DEMAND_PAGES 8
#define WINDOW 0x0000008080000000ul
#define LARGE_PAGE_RESERVED (1ull << 13) /* must be zero in an entry for a 2 MiB page */

static uint8_t pool[DEMAND_PAGES][PAGE] __attribute__((aligned(4096)));
static unsigned mapped;
static uint64_t rcx_at_fault[DEMAND_PAGES];
static uint8_t page[PAGE] __attribute__((aligned(4096)));
static uint8_t other[PAGE] __attribute__((aligned(4096)));

/* Maps what is touched in the demand region and goes on with the instruction. */
static void demand(struct frame *frame) {
  uint64_t address = read_cr2();
  if (address < DEMAND || address >= DEMAND + DEMAND_PAGES * PAGE || mapped == DEMAND_PAGES) {
    trap_handle(VECTOR_PF, 0); /* the same fault again, and none to take it */
    return;
  }
  print("page fault: CR2 %016lx error %02lx, mapped\n", address, frame->error);
  rcx_at_fault[mapped] = frame->rcx;
  page_map(address & ~(PAGE - 1), pool[mapped++], PTE_PRESENT | PTE_WRITE | PTE_NX);
}

static void visit_demand(void) {
  uint64_t last = DEMAND + 2 * PAGE - 4;
  trap_handle(VECTOR_PF, demand);
  check_equal("demand: a page read for the first time", load(DEMAND + 0x128), 0);
  check_equal("demand: and the next", load(DEMAND + PAGE), 0);
  store(last, 0x1122334455667788); /* half of it on the third page */
  check_equal("demand: a store over two pages, one of them new", load(last), 0x1122334455667788);
  check_equal("demand: pages mapped so far", mapped, 3);

  /* One REP MOVSB into four new pages: a fault at each, with the count left in RCX. */
  static uint8_t source[2 * PAGE + 100];
  void *from = source, *to = (void *)(DEMAND + 4 * PAGE - 50);
  uint64_t count = sizeof source;
  for (unsigned i = 0; i < sizeof source; i++) source[i] = (uint8_t)(i * 7 + i / 256);
  __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(memcmp(source, (void *)(DEMAND + 4 * PAGE - 50), sizeof source) == 0 && !count,
        "demand: REP MOVSB goes on after each fault");
  check_equal("demand: pages mapped in all", mapped, 7);
  check_equal("demand: RCX at the first fault", rcx_at_fault[3], sizeof source);
  check_equal("demand: RCX at the second", rcx_at_fault[4], sizeof source - 50);
  check_equal("demand: RCX at the third", rcx_at_fault[5], sizeof source - 50 - PAGE);
  check_equal("demand: RCX at the fourth", rcx_at_fault[6], 50);
  trap_handle(VECTOR_PF, 0);
}

/* One access that must end in #PF with the error code, at the address. */
static void check_fault(const char *what, void *access, uint64_t address, uint64_t error) {
  int vector = attempt(access, address, 0x55);
  print("page fault: vector %u CR2 %016lx error %02lx\n", vector, fault.cr2, fault.error);
  check(vector == VECTOR_PF && fault.error == error && fault.cr2 == address, what);
}

static void visit_rights(void) {
  uint64_t *entry = page_entry(WINDOW);
  check_fault("a read of a page not present", load, WINDOW + 0x10, 0);
  check_fault("a write to a page not present", store, WINDOW + 0x20, PF_WRITE);
  check_fault("a fetch from a page not present", execute, WINDOW + 0x30, PF_FETCH);

  page_map(WINDOW, page, PTE_PRESENT);
  load(WINDOW);
  check((*entry & (PTE_ACCESSED | PTE_DIRTY)) == PTE_ACCESSED, "a read sets the accessed bit alone");
  write_cr0(read_cr0() | CR0_WP);
  check_fault("a write to a read-only page, CR0.WP set", store, WINDOW + 0x40, PF_PRESENT | PF_WRITE);
  check(!(*entry & PTE_DIRTY), "and its dirty bit stays clear");
  write_cr0(read_cr0() & ~CR0_WP);
  check(attempt(store, WINDOW + 0x40, 0x77) == NO_FAULT, "the same, CR0.WP clear: no exception");
  check(page[0x40] == 0x77 && *entry & PTE_DIRTY, "it is written, and the dirty bit set");
  write_cr0(read_cr0() | CR0_WP);

  /* A store over two pages of which the second is read-only leaves the first alone. */
  page_map(WINDOW, other, PTE_PRESENT | PTE_WRITE);
  page_map(WINDOW + PAGE, page, PTE_PRESENT);
  int vector = attempt(store, WINDOW + PAGE - 4, 0x0123456789abcdef);
  check(vector == VECTOR_PF && fault.cr2 == WINDOW + PAGE && fault.error == (PF_PRESENT | PF_WRITE),
        "a store over two pages, the second read-only: #PF naming the second");
  check(*(uint32_t *)(other + PAGE - 4) == 0, "and nothing is stored on the first");

  page[0] = 0xc3; /* RET */
  page_map(WINDOW, page, PTE_PRESENT);
  check(attempt(execute, WINDOW, 0) == NO_FAULT, "a fetch from a page without NX: no exception");
  page_map(WINDOW, page, PTE_PRESENT | PTE_NX);
  check_fault("a fetch from a page with NX", execute, WINDOW, PF_PRESENT | PF_FETCH);
  check(attempt(load, WINDOW, 0) == NO_FAULT, "a read from it: no exception");

  /* INVLPG, then the other page is seen. */
  page[8] = 1;
  other[8] = 2;
  page_map(WINDOW, page, PTE_PRESENT);
  uint64_t before = load(WINDOW + 8) & 0xff;
  page_map(WINDOW, other, PTE_PRESENT);
  check(before == 1 && (load(WINDOW + 8) & 0xff) == 2, "INVLPG shows the changed entry");

  uint64_t *large = directory_entry(WINDOW + (1ul << 30));
  *large = LARGE_PAGE_RESERVED | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
  vector = attempt(load, WINDOW + (1ul << 30), 0);
  int there = vector == VECTOR_PF && fault.cr2 == WINDOW + (1ul << 30);
  /* QEMU 7.2 leaves the present bit out of the error code. */
  check_but_tcg(there && fault.error == (PF_PRESENT | PF_RESERVED), there && fault.error == PF_RESERVED,
                "#PF: a reserved bit in the entry of a 2 MiB page");
  *large = 0;
}

void visit_pages(void) {
  visit_demand();
  visit_rights();
}
