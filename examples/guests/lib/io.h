/* Port I/O. */
#ifndef IO_H
#define IO_H
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}

/* REP OUTSB: the device must be able to take them all at once. */
static inline void outsb(uint16_t port, const void *from, unsigned long count) {
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

/* REP INSB. */
static inline void insb(uint16_t port, void *to, unsigned long count) {
  __asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

#endif
