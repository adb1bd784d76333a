/* Three integer loops and their checksums: `sieve=`, `sha256=` and `sort=` give the rounds of each (0
 * leaves it out); without any, each runs once. No exits but for the line printed after each. */
#include "arguments.h"
#include "console.h"
#include "hashes.h"
#include "string.h"
#include "traps.h"

#define SIEVE_LIMIT 65536
#define HASH_BYTES 65536
#define SORT_KEYS 16384

static union {
  uint8_t bytes[HASH_BYTES];
  uint32_t keys[SORT_KEYS];
} work;

/* The linear congruential generator of Numerical Recipes: the same numbers everywhere. */
static uint32_t random_state;
static uint32_t next_random(void) {
  return random_state = random_state * 1664525 + 1013904223;
}

/* Loads and stores at a growing stride: the sum over all rounds of the primes found. */
static uint32_t sieve(uint64_t rounds) {
  uint32_t sum = 0;
  while (rounds--) {
    memset(work.bytes, 1, SIEVE_LIMIT);
    for (uint32_t i = 2; i < SIEVE_LIMIT; i++) {
      if (!work.bytes[i]) continue;
      sum += i;
      for (uint64_t j = (uint64_t)i * i; j < SIEVE_LIMIT; j += i) work.bytes[j] = 0;
    }
  }
  return sum;
}

/* Straight-line arithmetic: 64 KiB of zeros hashed, each round's digest put in front of the next. */
static uint32_t sha256(uint64_t rounds) {
  struct sha256 s;
  uint8_t digest[32];
  memset(work.bytes, 0, HASH_BYTES);
  memset(digest, 0, sizeof digest);
  while (rounds--) {
    memcpy(work.bytes, digest, sizeof digest);
    sha256_start(&s);
    sha256_add(&s, work.bytes, HASH_BYTES);
    sha256_finish(&s, digest);
  }
  return crc32(digest, sizeof digest);
}

/* Branches no one can predict: quicksort of random keys, summed with their places. */
static void quicksort(uint32_t *keys, int64_t low, int64_t high) {
  while (low < high) {
    uint32_t pivot = keys[(low + high) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (keys[i] < pivot) i++;
      while (keys[j] > pivot) j--;
      if (i > j) break;
      uint32_t t = keys[i];
      keys[i++] = keys[j];
      keys[j--] = t;
    }
    if (j - low < high - i) {
      quicksort(keys, low, j);
      low = i;
    } else {
      quicksort(keys, i, high);
      high = j;
    }
  }
}

static uint32_t sort(uint64_t rounds) {
  uint32_t sum = 0;
  random_state = 1;
  while (rounds--) {
    for (int i = 0; i < SORT_KEYS; i++) work.keys[i] = next_random();
    quicksort(work.keys, 0, SORT_KEYS - 1);
    for (uint32_t i = 0; i < SORT_KEYS; i++) sum += work.keys[i] * (i + 1);
  }
  return sum;
}

static const struct {
  const char *name;
  uint32_t (*run)(uint64_t rounds);
} loops[] = {{"sieve", sieve}, {"sha256", sha256}, {"sort", sort}};
#define LOOPS (sizeof loops / sizeof loops[0])

int main(void) {
  int chosen = 0;
  traps_init();
  for (unsigned i = 0; i < LOOPS; i++) chosen |= argument_present(loops[i].name);
  for (unsigned i = 0; i < LOOPS; i++) {
    uint64_t rounds = argument_number(loops[i].name, chosen ? 0 : 1);
    if (!rounds) continue;
    uint32_t checksum = loops[i].run(rounds);
    print("loops: %s rounds %lu checksum %08x\n", loops[i].name, rounds, checksum);
  }
  return 0;
}
