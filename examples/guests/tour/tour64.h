/* The 64-bit stops of the tour, in the order main() makes them. */
#ifndef TOUR64_H
#define TOUR64_H
#include <stdint.h>

void visit_long(void);       /* 64-bit mode itself, and compatibility mode from it */
void visit_cpuid(void);      /* processor.64.c */
void visit_msrs(void);       /* processor.64.c */
void visit_exceptions(void); /* exceptions.64.c */
void visit_pages(void);      /* pages.64.c */
void visit_user(void);       /* user.64.c */
void visit_ports(void);      /* ports.64.c */
void visit_interrupts(void); /* interrupts.64.c */
void visit_strings(void);    /* strings.64.c */
void visit_compute(void);    /* compute.64.c */

uint64_t call_compatibility(uint32_t value); /* compat.S */

#endif
