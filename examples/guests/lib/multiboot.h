/* Multiboot 1: the header a loader looks for and the information it hands over
 * (Multiboot Specification 0.6.96, 3.1 and 3.3). */
#ifndef MULTIBOOT_H
#define MULTIBOOT_H

#define MULTIBOOT_HEADER_MAGIC 0x1badb002
#define MULTIBOOT_LOADER_MAGIC 0x2badb002
#define MULTIBOOT_PAGE_ALIGN (1 << 0)  /* modules on page boundaries */
#define MULTIBOOT_MEMORY_INFO (1 << 1) /* memory sizes, and the map if there is one */

#define MULTIBOOT_HAS_MEMORY (1 << 0)
#define MULTIBOOT_HAS_COMMAND_LINE (1 << 2)
#define MULTIBOOT_HAS_MODULES (1 << 3)
#define MULTIBOOT_HAS_MEMORY_MAP (1 << 6)
#define MULTIBOOT_AVAILABLE 1 /* type of a memory map entry that is usable RAM */

#ifndef __ASSEMBLER__
#include <stdint.h>

struct multiboot_info {
  uint32_t flags;
  uint32_t mem_lower, mem_upper; /* KiB from 0, KiB from 1 MiB */
  uint32_t boot_device;
  uint32_t cmdline;
  uint32_t mods_count, mods_addr;
  uint32_t syms[4];
  uint32_t mmap_length, mmap_addr;
};

struct multiboot_module {
  uint32_t start, end; /* end is the first byte after it */
  uint32_t string;
  uint32_t reserved;
};

struct multiboot_memory {
  uint32_t size; /* of what follows, so the next entry is size + 4 bytes on */
  uint64_t base, length;
  uint32_t type;
} __attribute__((packed));
#endif

#endif
