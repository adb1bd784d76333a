/* What the loader says: the magic, memory, the command line, modules. */
#include "arguments.h"
#include "check.h"
#include "console.h"
#include "exit.h"
#include "hashes.h"
#include "tour32.h"

extern const char image_end[]; /* lib/guest.ld */
#define IMAGE_START 0x100000ull

static void print_memory(const struct multiboot_info *info) {
  int covered = 0;
  if (info->flags & MULTIBOOT_HAS_MEMORY) {
    print("memory: %u KiB lower, %u KiB upper\n", info->mem_lower, info->mem_upper);
  }
  check((info->flags & MULTIBOOT_HAS_MEMORY) && info->mem_lower && info->mem_upper, "memory sizes");
  if (info->flags & MULTIBOOT_HAS_MEMORY_MAP) {
    uint32_t at = info->mmap_addr, end = at + info->mmap_length;
    while (at < end) {
      const struct multiboot_memory *m = (const void *)at;
      print("memory: %016llx, %016llx bytes, type %u\n", (unsigned long long)m->base,
            (unsigned long long)m->length, m->type);
      if (m->type == MULTIBOOT_AVAILABLE && m->base <= IMAGE_START &&
          m->base + m->length >= (uint32_t)image_end) {
        covered = 1;
      }
      at += m->size + sizeof m->size;
    }
  }
  check(covered, "memory map, with the image in available memory");
}

static void print_modules(const struct multiboot_info *info) {
  uint32_t count = info->flags & MULTIBOOT_HAS_MODULES ? info->mods_count : 0;
  const struct multiboot_module *m = (const void *)info->mods_addr;
  print("boot: %u modules\n", count);
  for (uint32_t i = 0; i < count; i++, m++) {
    uint32_t bytes = m->end - m->start;
    print("boot: module %u: %u bytes, CRC-32 %08x, \"%s\"\n", i, bytes,
          crc32((const void *)m->start, bytes), m->string ? (const char *)m->string : "");
  }
}

void visit_boot(uint32_t magic, const struct multiboot_info *info) {
  check_equal("magic of a multiboot loader", magic, MULTIBOOT_LOADER_MAGIC);
  if (magic != MULTIBOOT_LOADER_MAGIC) guest_exit(1); /* nothing else can be trusted */
  print("boot: command line \"%s\"\n", arguments());
  print_modules(info);
  print_memory(info);
}
