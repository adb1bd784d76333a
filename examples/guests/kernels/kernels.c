/* Small integer programs of kinds that a translator has to be good at, compiled to both widths from one
 * text, each with a checksum that does not depend on the width. */
#include "kernels.h"
#include "hashes.h"
#include "measured.h"

#define WORDS 65536

static union {
  uint32_t words[WORDS];
  uint8_t bytes[WORDS * 4];
} work;

static uint32_t random_state;
static uint32_t next_random(void) {
  return random_state = random_state * 1664525 + 1013904223;
}

/* Loads that each need the one before: a walk along one cycle through 256 KiB. */
static uint32_t chase(uint32_t rounds) {
  random_state = 1;
  for (uint32_t i = 0; i < WORDS; i++) work.words[i] = i;
  for (uint32_t i = WORDS - 1; i > 0; i--) { /* Sattolo's shuffle makes one cycle */
    uint32_t j = (uint32_t)(((uint64_t)next_random() * i) >> 32);
    uint32_t t = work.words[i];
    work.words[i] = work.words[j];
    work.words[j] = t;
  }
  uint32_t at = 0, sum = 0;
  for (uint32_t n = rounds * WORDS; n > 0; n--) {
    at = work.words[at];
    sum += at ^ n;
  }
  return sum;
}

/* A switch that no predictor knows: an interpreter of a program of random opcodes. */
static uint32_t interpret(uint32_t rounds) {
  random_state = 2;
  for (int i = 0; i < 4096; i++) work.bytes[i] = next_random() >> 24 & 15;
  work.bytes[4095] = 15;
  uint32_t a = 1, b = 2;
  while (rounds--) {
    for (const uint8_t *p = work.bytes; p < work.bytes + 4096;) {
      switch (*p++) {
        case 0: a += b; break;
        case 1: a -= b; break;
        case 2: a ^= b; break;
        case 3: b += a << 1; break;
        case 4: b = b << 7 | b >> 25; break;
        case 5: a = a << 3 | a >> 29; break;
        case 6: a *= 5; break;
        case 7: b *= 9; break;
        case 8: if (a & 1) p++; break;
        case 9: if (b & 1) p++; break;
        case 10: a = ~a; break;
        case 11: b = -b; break;
        case 12: a += 0x12345; break;
        case 13: b ^= 0x54321; break;
        case 14: { uint32_t t = a; a = b; b = t; break; }
        default: a ^= a >> 15; break;
      }
    }
  }
  return a ^ b;
}

/* Calls and returns. */
__attribute__((noinline, noclone)) static uint32_t fibonacci(uint32_t n) {
  if (n < 2) return n;
  uint32_t before = fibonacci(n - 2);
  return before + fibonacci(n - 1);
}

static uint32_t calls(uint32_t rounds) {
  uint32_t sum = 0;
  while (rounds--) sum += fibonacci(18 + (rounds & 1));
  return sum;
}

/* Multiplications in three nested loops. */
static uint32_t matrix(uint32_t rounds) {
  enum { N = 64 };
  uint32_t *a = work.words, *b = a + N * N, *c = b + N * N;
  for (uint32_t i = 0; i < N * N; i++) {
    a[i] = i * 7;
    b[i] = i ^ 0x55;
  }
  uint32_t sum = 0;
  while (rounds--) {
    for (uint32_t i = 0; i < N; i++) {
      for (uint32_t j = 0; j < N; j++) {
        uint32_t s = 0;
        for (uint32_t k = 0; k < N; k++) s += a[i * N + k] * b[k * N + j];
        c[i * N + j] = s;
      }
    }
    sum += c[rounds % (N * N)];
    a[rounds % (N * N)] += sum;
  }
  return sum;
}

/* Calls through pointers, of four kinds in an order of no pattern. */
struct shape;
typedef uint32_t area(const struct shape *shape);
struct shape {
  area *area;
  uint32_t x, y;
};
static uint32_t square(const struct shape *s) { return s->x * s->x; }
static uint32_t rectangle(const struct shape *s) { return s->x * s->y; }
static uint32_t triangle(const struct shape *s) { return s->x * s->y / 2; }
static uint32_t frame(const struct shape *s) { return 2 * (s->x + s->y); }

static uint32_t virtual(uint32_t rounds) {
  static area *const areas[] = {square, rectangle, triangle, frame};
  static struct shape shapes[1024];
  random_state = 3;
  for (int i = 0; i < 1024; i++) {
    shapes[i].area = areas[next_random() >> 30];
    shapes[i].x = next_random() >> 24;
    shapes[i].y = next_random() >> 24;
  }
  uint32_t sum = 0;
  while (rounds--) {
    for (int i = 0; i < 1024; i++) sum += shapes[i].area(&shapes[i]);
  }
  return sum;
}

/* A table look-up for each byte. */
static uint32_t crc(uint32_t rounds) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 65536; i++) work.bytes[i] = (uint8_t)(i * i >> 3);
  while (rounds--) {
    sum ^= crc32(work.bytes, 65536);
    work.bytes[sum & 0xffff]++;
  }
  return sum;
}

/* REP MOVS and REP STOS over 64 KiB. */
static uint32_t strings(uint32_t rounds) {
  uint8_t *from = work.bytes, *to = work.bytes + 131072;
  for (uint32_t i = 0; i < 65536; i++) from[i] = (uint8_t)(i * 13 >> 2);
  while (rounds--) {
    void *d = to, *s = from;
    uint32_t value = rounds & 0xff;
    size_t n = 65536;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    d = from + (rounds & 0xfff);
    n = 4096;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(value) : "memory");
  }
  return crc32(to, 65536);
}

static const struct measured kernels[] = {
    {"chase", chase}, {"interpret", interpret}, {"calls", calls},     {"matrix", matrix},
    {"virtual", virtual}, {"crc", crc},         {"strings", strings}};

void kernels_run(void) {
  measured_run("kernels", kernels, sizeof kernels / sizeof kernels[0]);
}
