/* What the 16-bit code (low.S) brings back. It runs as a copy at LOW_MEMORY. */
#ifndef LOW_H
#define LOW_H

#define LOW_DIVISIONS 2 /* DIV instructions by zero in real mode */
#define LOW_MARKER 0x600dcafe

#ifndef __ASSEMBLER__
#include <stdint.h>

struct low_results {
  uint16_t protected_push, protected_msw; /* bytes of a PUSH; CR0[15:0] */
  uint16_t real_push, real_msw;
  uint16_t interrupt_ax;    /* AX after INT 60h with 1234h in it; the handler inverts it */
  uint16_t interrupt_stack; /* bytes INT pushed */
  uint16_t interrupt_flags; /* FLAGS after IRET; the handler set CF in the pushed image */
  uint16_t interrupt_frame; /* whether CS:IP on the stack pointed behind the INT */
  uint16_t divisions;       /* #DE taken, the return address being the DIV itself */
  uint16_t alias;           /* a word read through another segment:offset of the same address */
  uint32_t high;            /* read at low_marker, above 1 MiB */
} __attribute__((packed));

extern const uint8_t low_begin[], low_end[], low_results[];
extern const uint32_t low_marker;

void low_go(void); /* the copy must be in place */
#endif

#endif
