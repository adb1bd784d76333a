/* Page tables of long mode: 4 KiB pages beside the one-to-one map of lib/start.S. */
#ifndef PAGING_H
#define PAGING_H
#include <stdint.h>

#define PTE_PRESENT (1ull << 0)
#define PTE_WRITE (1ull << 1)
#define PTE_USER (1ull << 2)
#define PTE_ACCESSED (1ull << 5)
#define PTE_DIRTY (1ull << 6)
#define PTE_LARGE (1ull << 7)
#define PTE_NX (1ull << 63)

#define PAGE 4096ul

/* The entry that maps the 4 KiB page at a linear address; tables on the way are made. The address must
 * lie outside the 2 MiB pages of the one-to-one map (0 to 4 GiB). */
uint64_t *page_entry(uint64_t address);

/* The page-directory entry above page_entry(address). */
uint64_t *directory_entry(uint64_t address);

/* Maps one page with the given PTE bits and drops what the TLB knew of it. */
void page_map(uint64_t address, const void *page, uint64_t bits);

static inline void invlpg(uint64_t address) {
  __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

#endif
