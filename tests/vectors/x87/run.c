/*
 * Runs programs on the x87 unit of the processor it is started on.
 *
 * Usage: run INPUT OUTPUT. INPUT is a stream of little-endian numbers that record.ts writes: four words
 * that say where code, input and output stand and how long the latter two are at most, then for each
 * program its length, that of its input, and both. OUTPUT has the output of each program, which is as
 * long as its input. A program ends with RET and may change RAX, RBX, RCX and RBP.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CODE_BYTES = 4096 };

static void fail(const char *what) {
  fprintf(stderr, "run: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint8_t *map(uint32_t base, size_t size, int protection) {
  void *want = (void *)(uintptr_t)base;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  if (mmap(want, size, protection, flags, -1, 0) != want) fail("mmap");
  return want;
}

static void get(FILE *in, void *to, size_t bytes) {
  if (fread(to, 1, bytes, in) != bytes) fail("input ends early");
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: run INPUT OUTPUT\n");
    return 2;
  }
  FILE *in = fopen(arguments[1], "rb");
  if (in == NULL) fail(arguments[1]);
  FILE *out = fopen(arguments[2], "wb");
  if (out == NULL) fail(arguments[2]);

  uint32_t place[4];
  get(in, place, sizeof place);
  uint8_t *code = map(place[0], CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  uint8_t *input = map(place[1], place[3], PROT_READ | PROT_WRITE);
  uint8_t *output = map(place[2], place[3], PROT_READ | PROT_WRITE);

  uint32_t length[2];
  while (fread(length, sizeof length, 1, in) == 1) {
    if (length[0] > CODE_BYTES || length[1] > place[3]) {
      fprintf(stderr, "run: a program or its input is too long\n");
      return 1;
    }
    get(in, code, length[0]);
    get(in, input, length[1]);
    memset(output, 0, length[1]);
    __asm__ volatile(
        "sub $256, %%rsp\n\t push %%rbx\n\t push %%rbp\n\t call *%0\n\t"
        "pop %%rbp\n\t pop %%rbx\n\t add $256, %%rsp\n\t cld"
        :
        : "r"(code)
        : "rax", "rcx", "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)",
          "st(7)");
    if (fwrite(output, 1, length[1], out) != length[1]) fail("write");
  }
  if (fclose(out) != 0) fail("close");
  return 0;
}
