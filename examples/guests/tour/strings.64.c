/* String instructions, with every repeat prefix, both directions and three address sizes. */
#include "check.h"
#include "string.h"
#include "tour64.h"

#define N 256

static uint8_t a[N], b[N];

static void fill(void) {
  for (int i = 0; i < N; i++) {
    a[i] = (uint8_t)(i * 3 + 1);
    b[i] = 0;
  }
}

static void visit_moves(void) {
  void *from, *to;
  uint64_t count;
  fill();
  from = a, to = b, count = 100;
  __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(memcmp(a, b, 100) == 0 && b[100] == 0 && from == a + 100 && to == b + 100 && !count,
        "REP MOVSB");
  from = a, to = b, count = N / 8;
  __asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(memcmp(a, b, N) == 0 && from == a + N && !count, "REP MOVSQ");

  /* Overlapping, one byte on: forward it repeats the first byte, backward it moves. */
  fill();
  from = a, to = a + 1, count = N - 1;
  __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(a[0] == 1 && a[1] == 1 && a[N - 1] == 1, "REP MOVSB, overlapping, forward");
  fill();
  from = a + N - 2, to = a + N - 1, count = N - 1;
  __asm__ volatile("std; rep movsb; cld" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(a[0] == 1 && a[1] == 1 && a[2] == 4 && a[N - 1] == (uint8_t)((N - 2) * 3 + 1) &&
            (uint64_t)from == (uint64_t)a - 1,
        "REP MOVSB, overlapping, backward");

  fill();
  from = a, to = b, count = 0;
  __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(b[0] == 0 && from == a && to == b, "REP with a count of 0 does nothing");

  /* With a 32-bit address size ECX counts, and the upper halves of all three are cleared. */
  uint64_t rsi = (uint64_t)a | 0xabcd00000000, rdi = (uint64_t)b | 0xabcd00000000;
  count = 0xabcd00000010;
  __asm__ volatile("addr32 rep movsb" : "+S"(rsi), "+D"(rdi), "+c"(count) : : "memory");
  check(memcmp(a, b, 16) == 0 && b[16] == 0 && rsi == (uint64_t)a + 16 && rdi == (uint64_t)b + 16 && !count,
        "REP MOVSB, 32-bit addresses");
}

static void visit_stores(void) {
  void *to = a;
  uint64_t count = 5, value = 0x1122334455667788;
  fill();
  __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  check(a[0] == 0x88 && a[7] == 0x11 && a[39] == 0x11 && a[40] == 121 && to == a + 40, "REP STOSQ");
  to = b, count = 3;
  __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  check(memcmp(b, "\x88\x77\x88\x77\x88\x77\0", 7) == 0, "REP STOSW");
  const void *from = a;
  value = 0xffffffffffffffff;
  __asm__ volatile("lodsl" : "+S"(from), "+a"(value) : : "memory");
  check_equal("LODSD clears the upper half of RAX", value, 0x55667788);
}

static void visit_scans(void) {
  static const char text[] = "the quick brown fox", same[] = "the quick brown cat";
  const char *at = text, *with = same;
  uint64_t count = ~0ull;
  uint8_t zero;
  __asm__ volatile("repne scasb" : "+D"(at), "+c"(count) : "a"(0) : "memory");
  check_equal("REPNE SCASB: length of a string", ~count - 1, sizeof text - 1);

  at = text, count = 3;
  __asm__ volatile("repne scasb" : "+D"(at), "+c"(count), "=@ccz"(zero) : "a"('q') : "memory");
  check(!zero && !count && at == text + 3, "REPNE SCASB: not found, ZF clear");

  at = text, count = sizeof text;
  __asm__ volatile("repe cmpsb" : "+S"(at), "+D"(with), "+c"(count), "=@ccz"(zero) : : "memory");
  check_equal("REPE CMPSB: first difference", (uint64_t)(at - text) - 1, 16);
  check(!zero && count == sizeof text - 17, "REPE CMPSB: ZF clear, RCX left");

  at = text, with = text, count = 9;
  __asm__ volatile("repe cmpsb" : "+S"(at), "+D"(with), "+c"(count), "=@ccz"(zero) : : "memory");
  check(zero && !count, "REPE CMPSB: equal, ZF set");
}

void visit_strings(void) {
  visit_moves();
  visit_stores();
  visit_scans();
}
