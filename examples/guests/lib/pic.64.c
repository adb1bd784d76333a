#include "pic.h"

#include "io.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define ICW1_INIT_ICW4 0x11
#define ICW4_8086 0x01
#define OCW2_EOI 0x20
#define OCW3_READ_IRR 0x0a
#define OCW3_READ_ISR 0x0b
#define CASCADE 2

void pic_init(uint8_t base) {
  outb(MASTER, ICW1_INIT_ICW4);
  outb(SLAVE, ICW1_INIT_ICW4);
  outb(MASTER + 1, base);
  outb(SLAVE + 1, base + 8);
  outb(MASTER + 1, 1 << CASCADE);
  outb(SLAVE + 1, CASCADE);
  outb(MASTER + 1, ICW4_8086);
  outb(SLAVE + 1, ICW4_8086);
  outb(MASTER + 1, (uint8_t)~(1 << CASCADE));
  outb(SLAVE + 1, 0xff);
}

void pic_mask(unsigned line, int masked) {
  uint16_t port = (line < 8 ? MASTER : SLAVE) + 1;
  uint8_t bit = 1 << (line & 7), mask = inb(port);
  outb(port, masked ? mask | bit : mask & ~bit);
}

uint8_t pic_requests(void) {
  outb(MASTER, OCW3_READ_IRR);
  return inb(MASTER);
}

uint8_t pic_in_service(void) {
  outb(MASTER, OCW3_READ_ISR);
  return inb(MASTER);
}

void pic_eoi(unsigned line) {
  if (line >= 8) outb(SLAVE, OCW2_EOI);
  outb(MASTER, OCW2_EOI);
}
