/* Included before every source of a guest that is built as a program of Linux: ports and control
 * registers as far as the measured programs use them. */
#include <stdint.h>

#define IO_H
void outb(uint16_t port, uint8_t value);
uint8_t inb(uint16_t port);

#define CPU_H /* Linux has switched x87 and SSE2 on */
#define read_cr0() 0ul
#define read_cr4() 0ul
#define write_cr0(value) ((void)(value))
#define write_cr4(value) ((void)(value))
