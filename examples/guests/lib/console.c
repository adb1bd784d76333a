#include "console.h"

#include <stdarg.h>

#include "io.h"

void console_init(void) {
  outb(UART_IER, 0);
  outb(UART_LCR, 0x80); /* divisor latch */
  outb(UART_DATA, 1);
  outb(UART_IER, 0);
  outb(UART_LCR, 0x03);
  outb(UART_FCR, 0x07); /* enable and clear both FIFOs */
  outb(UART_MCR, 0x0b); /* DTR, RTS, OUT2 */
}

void console_put(char c) {
  while (!(inb(UART_LSR) & UART_LSR_THRE)) {
  }
  outb(UART_DATA, c);
}

void console_drain(void) {
  while (!(inb(UART_LSR) & UART_LSR_TEMT)) {
  }
}

static void put_number(unsigned long long value, unsigned base, unsigned width) {
  char digits[20];
  unsigned n = 0;
  if (base == 16) {
    do {
      digits[n++] = "0123456789abcdef"[value & 15];
      value >>= 4;
    } while (value);
  } else {
    /* a native long, so that 32-bit code needs no 64-bit division */
    unsigned long v = (unsigned long)value;
    do {
      digits[n++] = '0' + v % 10;
      v /= 10;
    } while (v);
  }
  for (unsigned i = n; i < width; i++) console_put('0');
  while (n) console_put(digits[--n]);
}

void print(const char *format, ...) {
  va_list args;
  va_start(args, format);
  for (const char *p = format; *p; p++) {
    if (*p != '%') {
      console_put(*p);
      continue;
    }
    unsigned width = 0, longs = 0;
    for (p++; *p >= '0' && *p <= '9'; p++) width = width * 10 + (*p - '0');
    for (; *p == 'l'; p++) longs++;
    switch (*p) {
      case 's':
        for (const char *s = va_arg(args, const char *); *s; s++) console_put(*s);
        break;
      case 'c':
        console_put(va_arg(args, int));
        break;
      case 'u':
        put_number(longs ? va_arg(args, unsigned long) : va_arg(args, unsigned), 10, width);
        break;
      case 'x':
        put_number(longs == 0   ? va_arg(args, unsigned)
                   : longs == 1 ? va_arg(args, unsigned long)
                                : va_arg(args, unsigned long long),
                   16, width);
        break;
      default:
        console_put('%');
        console_put(*p);
    }
  }
  va_end(args);
}
