/* The programs, each answering a checksum. Every operation they use rounds as IEEE 754 says, so that the
 * last bit is the same everywhere. */
#ifndef PROGRAMS_H
#define PROGRAMS_H
#include <stdint.h>

/* sse2.float.c */
uint32_t bodies(uint32_t rounds);
uint32_t transform(uint32_t rounds);
uint32_t fractal(uint32_t rounds);
uint32_t blend(uint32_t rounds);

/* x87.float.c */
uint32_t bodies87(uint32_t rounds);
uint32_t fractal87(uint32_t rounds);
uint32_t series87(uint32_t rounds);

#endif
