/* SHA-256 (FIPS 180-4) and CRC-32 (IEEE 802.3, reflected): work with known answers. */
#ifndef HASHES_H
#define HASHES_H
#include <stddef.h>
#include <stdint.h>

struct sha256 {
  uint32_t state[8];
  uint8_t block[64];
  uint64_t length; /* bytes so far */
};

void sha256_start(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t n);
void sha256_finish(struct sha256 *s, uint8_t digest[32]);

uint32_t crc32(const void *data, size_t n);

#endif
