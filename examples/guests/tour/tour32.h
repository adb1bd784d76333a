/* The 32-bit stops of the tour, in the order main32() makes them. */
#ifndef TOUR32_H
#define TOUR32_H
#include <stdint.h>

#include "multiboot.h"

void visit_boot(uint32_t magic, const struct multiboot_info *info);
void visit_low(void);           /* 16-bit protected mode and real mode */
void visit_legacy_paging(void); /* two-level page tables */
void visit_pae_paging(void);    /* three-level page tables */
void visit_compatibility(void); /* long mode with 32-bit code, and out of it again */

#endif
