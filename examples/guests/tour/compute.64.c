/* Work with answers known beforehand, none of them computed here. */
#include "check.h"
#include "console.h"
#include "hashes.h"
#include "string.h"
#include "tour64.h"

#define LIMIT 100000
#define MILLION 1000000
#define SIZE 64

static uint8_t work[LIMIT];

static unsigned primes(void) {
  unsigned count = 0;
  memset(work, 1, LIMIT);
  for (uint32_t i = 2; i < LIMIT; i++) {
    if (!work[i]) continue;
    count++;
    for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i) work[j] = 0;
  }
  return count;
}

static void check_digest(const char *what, struct sha256 *s, const uint32_t want[8]) {
  uint8_t digest[32], expected[32];
  sha256_finish(s, digest);
  for (int i = 0; i < 32; i++) expected[i] = (uint8_t)(want[i / 4] >> (24 - 8 * (i % 4)));
  print("compute: %s: ", what);
  for (int i = 0; i < 32; i++) print("%02x", digest[i]);
  print("\n");
  check(memcmp(digest, expected, 32) == 0, what);
}

/* The examples of FIPS 180-2, appendix B.1 and B.3. */
static void visit_sha256(void) {
  static const uint32_t abc[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                  0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
  static const uint32_t million[8] = {0xcdc76e5c, 0x9914fb92, 0x81a1c7e2, 0x84d73e67,
                                      0xf1809a48, 0xa497200e, 0x046d39cc, 0xc7112cd0};
  struct sha256 s;
  sha256_start(&s);
  sha256_add(&s, "abc", 3);
  check_digest("SHA-256 of \"abc\"", &s, abc);
  sha256_start(&s);
  memset(work, 'a', 1000);
  for (int i = 0; i < MILLION / 1000; i++) sha256_add(&s, work, 1000);
  check_digest("SHA-256 of a million times \"a\"", &s, million);
}

/* The trace of A B, where A[i][j] = i * j + i - j and B[i][j] = i * i - 3 * j. */
static int64_t trace(void) {
  static int32_t a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
  int64_t sum = 0;
  for (int i = 0; i < SIZE; i++) {
    for (int j = 0; j < SIZE; j++) {
      a[i][j] = i * j + i - j;
      b[i][j] = i * i - 3 * j;
    }
  }
  for (int i = 0; i < SIZE; i++) {
    for (int j = 0; j < SIZE; j++) {
      c[i][j] = 0;
      for (int k = 0; k < SIZE; k++) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int i = 0; i < SIZE; i++) sum += c[i][i];
  return sum;
}

/* Two calls a level: the compiler must not make a loop of it. */
__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static unsigned fib(unsigned n) {
  return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* 128 bits by 64-bit instructions: 34! is the largest factorial that fits. */
static void visit_wide(void) {
  uint64_t low = 1, high = 0, rest = 0;
  for (uint64_t n = 2; n <= 34; n++) {
    uint64_t carry;
    __asm__("mulq %3" : "=a"(low), "=d"(carry) : "0"(low), "r"(n) : "cc");
    high = high * n + carry;
  }
  check_equal("34!, upper half", high, 0xde1bc4d19efcac82);
  check_equal("34!, lower half", low, 0x445da75b00000000);
  for (uint64_t n = 34; n >= 2; n--) {
    uint64_t r = 0;
    __asm__("divq %4" : "=a"(high), "=d"(r) : "0"(high), "1"(r), "r"(n) : "cc");
    __asm__("divq %4" : "=a"(low), "=d"(r) : "0"(low), "1"(r), "r"(n) : "cc");
    rest |= r;
  }
  check_equal("divided back down", low, 1);
  check_equal("without remainders", rest | high, 0);

  int64_t quotient = -1000000000000000003, remainder;
  int64_t product_high;
  __asm__("imulq %3" : "=a"(quotient), "=d"(product_high) : "0"(quotient), "r"(1000000007l) : "cc");
  check_equal("IMUL, upper half", (uint64_t)product_high, 0xfffffffffcc4d1c2);
  check_equal("IMUL, lower half", (uint64_t)quotient, 0xff0a80d8d173a1eb);
  __asm__("idivq %4"
          : "=a"(quotient), "=d"(remainder)
          : "0"(quotient + 5), "1"(product_high), "r"(1000000007l)
          : "cc");
  check_equal("IDIV, quotient", (uint64_t)quotient, (uint64_t)-1000000000000000002);
  check_equal("IDIV, remainder", (uint64_t)remainder, (uint64_t)-1000000002);
}

void visit_compute(void) {
  unsigned count = primes();
  print("compute: %u primes below %u\n", count, LIMIT);
  check(count == 9592, "sieve of Eratosthenes");
  visit_sha256();
  check_equal("CRC-32 of \"123456789\"", crc32("123456789", 9), 0xcbf43926);
  check_equal("trace of a matrix product", (uint64_t)trace(), 7585127424);
  unsigned f = fib(24);
  print("compute: fib(24) = %u\n", f);
  check(f == 46368, "recursion");
  visit_wide();
}
