/* Instructions that fault or trap (provoke.S). Each function has a label `_at` at the address the
 * exception must name. */
#ifndef PROVOKE_H
#define PROVOKE_H

#define BAD_SELECTOR 0xff8 /* past the GDT's limit */
#define VECTOR_EMPTY 0x40  /* an IDT entry of zeros */
#define VECTOR_ABSENT 0x41 /* an interrupt gate with P = 0 */

#ifndef __ASSEMBLER__
#include <stdint.h>

void divide_by_zero(void), divide_overflow(void), divide_signed_overflow(void);
void undefined(void), lock_on_register(void), breakpoint(void), not_canonical(void);
void bad_selector(void), gate_without_type(void), gate_not_present(void);
extern const uint8_t divide_by_zero_at[], divide_overflow_at[], divide_signed_overflow_at[];
extern const uint8_t undefined_at[], lock_on_register_at[], breakpoint_at[], not_canonical_at[];
extern const uint8_t bad_selector_at[], gate_without_type_at[], gate_not_present_at[];

/* One access each, at an address the caller gives. */
uint64_t load(uint64_t address);
void store(uint64_t address, uint64_t value);
void execute(uint64_t address); /* calls it */
#endif

#endif
