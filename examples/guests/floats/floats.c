/* Floating-point programs, compiled to both widths from one text. */
#include "floats.h"
#include "cpu.h"
#include "measured.h"
#include "programs.h"

#define CR0_MP (1ul << 1)
#define CR0_EM (1ul << 2)
#define CR0_TS (1ul << 3)
#define CR4_OSFXSR (1ul << 9)
#define CR4_OSXMMEXCPT (1ul << 10)

static const struct measured programs[] = {
    {"bodies", bodies},     {"transform", transform}, {"fractal", fractal},  {"blend", blend},
    {"bodies87", bodies87}, {"fractal87", fractal87}, {"series87", series87}};

void floats_run(void) {
  uint32_t mxcsr = 0x1f80; /* everything masked, to nearest */
  write_cr0((read_cr0() | CR0_MP) & ~(CR0_EM | CR0_TS));
  write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
  __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
  measured_run("floats", programs, sizeof programs / sizeof programs[0]);
}
