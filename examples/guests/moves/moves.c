/* Moving and searching memory, in loops and by string instructions of many lengths, compiled to both
 * widths from one text. */
#include "moves.h"
#include "hashes.h"
#include "measured.h"

#define SIZE 65536

static uint8_t from[SIZE + 64], to[SIZE + 64];

static void fill(void) {
  for (uint32_t i = 0; i < sizeof from; i++) from[i] = (uint8_t)(i * 13 >> 2 | 1);
  for (uint32_t i = 0; i < sizeof to; i++) to[i] = 0;
}

/* memcpy() as C without string instructions does it: words where both ends allow, and once unaligned. */
__attribute__((noinline)) static void copy_words(void *d, const void *s, unsigned words) {
  unsigned long *a = d;
  const unsigned long *b = s;
  for (; words >= 4; words -= 4, a += 4, b += 4) {
    unsigned long w = b[0], x = b[1], y = b[2], z = b[3];
    a[0] = w;
    a[1] = x;
    a[2] = y;
    a[3] = z;
  }
}

static uint32_t copy(uint32_t rounds) {
  fill();
  while (rounds--) {
    copy_words(to, from, SIZE / sizeof(long));
    copy_words(to + 3, from + (rounds & 31) + 1, 4096 / sizeof(long));
    from[rounds & (SIZE - 1)]++;
  }
  return crc32(to, SIZE);
}

static inline void movsb(void *d, const void *s, unsigned long n) {
  __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}
static inline void movsl(void *d, const void *s, unsigned long n) {
  __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
}
static inline void stosl(void *d, uint32_t value, unsigned long n) {
  __asm__ volatile("rep stosl" : "+D"(d), "+c"(n) : "a"(value) : "memory");
}

/* REP MOVS and REP STOS over whole pages. */
static uint32_t pages(uint32_t rounds) {
  fill();
  while (rounds--) {
    movsb(to, from, SIZE);
    movsl(to + (rounds & 63), from, 1024);
    stosl(from + (rounds & 0xfff), rounds, 1024);
  }
  return crc32(to, SIZE);
}

/* The same over 1 to 128 bytes, as compilers emit them for structures. */
static uint32_t pieces(uint32_t rounds) {
  fill();
  while (rounds--) {
    for (unsigned i = 0; i < 256; i++) {
      unsigned n = (i * 37 + rounds) & 31;
      movsb(to + i * 64, from + i * 65, n + 1);
      movsl(to + 16384 + i * 128, from + i * 3, n + 1);
      stosl(to + 49152 + i * 32, i ^ rounds, 7);
    }
  }
  return crc32(to, SIZE);
}

/* REPNE SCASB and REPE CMPSB, as strlen() and memcmp() use them, and LODSB. */
static uint32_t search(uint32_t rounds) {
  fill();
  for (unsigned i = 0; i < SIZE; i += 67) from[i] = 0;
  for (unsigned i = 0; i < SIZE; i++) to[i] = from[i];
  uint32_t sum = 0;
  while (rounds--) {
    to[rounds * 193 & (SIZE - 1)] ^= 1;
    const uint8_t *at = from, *end = from + 4096;
    while (at < end) {
      unsigned long n = 4096;
      const uint8_t *p = at;
      __asm__ volatile("repne scasb" : "+D"(p), "+c"(n) : "a"(0) : "memory", "cc");
      sum += (uint32_t)(p - at);
      at = p;
    }
    for (unsigned i = 0; i < SIZE; i += 512) {
      const uint8_t *a = from + i, *b = to + i;
      unsigned long n = 512;
      __asm__ volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(n) : : "memory", "cc");
      sum = sum * 33 + (uint32_t)n;
    }
    const uint8_t *p = from + (rounds & 0xfff);
    for (unsigned i = 0; i < 1024; i++) {
      uint8_t byte;
      __asm__ volatile("lodsb" : "=a"(byte), "+S"(p) : : "memory");
      sum = (sum << 1 | sum >> 31) ^ byte;
    }
  }
  return sum;
}

static const struct measured programs[] = {
    {"copy", copy}, {"pages", pages}, {"pieces", pieces}, {"search", search}};

void moves_run(void) {
  measured_run("moves", programs, sizeof programs / sizeof programs[0]);
}
