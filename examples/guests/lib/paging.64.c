#include "paging.h"

#include "console.h"
#include "exit.h"

#define ADDRESS_BITS 0x000ffffffffff000ull
#define ENTRIES 512
#define POOL 12 /* tables, enough for a few regions */

extern uint64_t pml4[ENTRIES];

static uint64_t pool[POOL][ENTRIES] __attribute__((aligned(4096)));
static unsigned used;

static uint64_t *descend(uint64_t *table, unsigned index) {
  if (!(table[index] & PTE_PRESENT)) {
    if (used == POOL) {
      print("paging: out of tables\n");
      guest_exit(2);
    }
    /* Rights are the sum of all levels', so the upper ones allow everything. */
    table[index] = (uint64_t)pool[used++] | PTE_PRESENT | PTE_WRITE | PTE_USER;
  }
  return (uint64_t *)(table[index] & ADDRESS_BITS);
}

uint64_t *directory_entry(uint64_t address) {
  uint64_t *pdpt = descend(pml4, address >> 39 & 511);
  return descend(pdpt, address >> 30 & 511) + (address >> 21 & 511);
}

uint64_t *page_entry(uint64_t address) {
  uint64_t *directory = directory_entry(address);
  return descend(directory, 0) + (address >> 12 & 511);
}

void page_map(uint64_t address, const void *page, uint64_t bits) {
  *page_entry(address) = (uint64_t)page | bits;
  invlpg(address);
}
