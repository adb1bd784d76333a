#include "arguments.h"

#include "console.h"
#include "exit.h"
#include "multiboot.h"
#include "string.h"

extern uint32_t boot_info; /* start.S */

static const char *skip_word(const char *p) {
  while (*p && *p != ' ') p++;
  while (*p == ' ') p++;
  return p;
}

const char *arguments(void) {
  const struct multiboot_info *info = (const void *)(uintptr_t)boot_info;
  if (!(info->flags & MULTIBOOT_HAS_COMMAND_LINE) || !info->cmdline) return "";
  const char *line = (const char *)(uintptr_t)info->cmdline;
  while (*line == ' ') line++;
  for (const char *p = line; *p && *p != ' ' && *p != '='; p++) {
    if (*p == '/' || *p == '.') return skip_word(line);
  }
  return line;
}

/* Where the text after the word begins, or null. */
static const char *find(const char *word) {
  size_t n = strlen(word);
  for (const char *p = arguments(); *p; p = skip_word(p)) {
    if (memcmp(p, word, n) == 0 && (p[n] == '\0' || p[n] == ' ' || p[n] == '=')) return p + n;
  }
  return 0;
}

int argument_present(const char *word) {
  return find(word) != 0;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

uint64_t argument_number(const char *key, uint64_t otherwise) {
  const char *p = find(key);
  if (!p) return otherwise;
  int base = 10, digits = 0;
  uint64_t value = 0;
  if (*p == '=') p++;
  if (p[0] == '0' && p[1] == 'x') {
    base = 16;
    p += 2;
  }
  for (; digit(*p) < base; p++, digits++) value = value * base + digit(*p);
  if (!digits || (*p && *p != ' ')) {
    print("command line: %s needs a number\n", key);
    guest_exit(2);
  }
  return value;
}
