/* The two 8259 interrupt controllers of a PC, cascaded. */
#ifndef PIC_H
#define PIC_H
#include <stdint.h>

/* Initialises both with their vectors at base and base + 8, everything masked but the cascade. */
void pic_init(uint8_t base);

/* Masks or unmasks one of the lines 0 to 15. */
void pic_mask(unsigned line, int masked);

/* The master's interrupt request and in-service registers. */
uint8_t pic_requests(void);
uint8_t pic_in_service(void);

/* Ends the highest interrupt in service of the controller(s) the line passes. */
void pic_eoi(unsigned line);

#endif
