/* Port I/O: single bytes and strings, forward and backward. */
#include "check.h"
#include "console.h"
#include "io.h"
#include "string.h"
#include "tour64.h"

void visit_ports(void) {
  static const char text[UART_FIFO_SIZE + 1] = "port: rep outsb\n";
  static const char reversed[] = "\n)sdrawkcab( bstuo per :trop";
  uint8_t bytes[6];

  outb(UART_SCR, 0x5a);
  check_equal("UART scratch register: OUT, then IN", inb(UART_SCR), 0x5a);

  /* The transmitter's FIFO takes 16 bytes at once when it is empty. */
  const char *from = text;
  uint64_t count = sizeof text - 1;
  console_drain();
  __asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(UART_DATA) : "memory");
  check(from == text + sizeof text - 1 && !count, "REP OUTSB: RSI behind the text, RCX 0");

  from = reversed + sizeof reversed - 2;
  for (count = sizeof reversed - 1; count;) {
    uint64_t some = count < UART_FIFO_SIZE ? count : UART_FIFO_SIZE;
    count -= some;
    console_drain();
    __asm__ volatile("std; rep outsb; cld" : "+S"(from), "+c"(some) : "d"(UART_DATA) : "memory");
  }
  check((uint64_t)from == (uint64_t)reversed - 1, "REP OUTSB, DF set: RSI before the text");

  memset(bytes, 0xee, sizeof bytes);
  outb(UART_SCR, 0xa5);
  insb(UART_SCR, bytes + 1, 4);
  check(memcmp(bytes, "\xee\xa5\xa5\xa5\xa5\xee", 6) == 0, "REP INSB: four bytes and no more");

  uint8_t *to = bytes;
  __asm__ volatile("insb" : "+D"(to) : "d"(UART_SCR) : "memory");
  check(bytes[0] == 0xa5 && to == bytes + 1, "INSB: one byte");
}
