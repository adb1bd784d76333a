/* External interrupts without a timer: the UART's transmitter-empty interrupt, IRQ 4. */
#include "check.h"
#include "console.h"
#include "cpu.h"
#include "io.h"
#include "pic.h"
#include "tour64.h"
#include "traps.h"

#define IRQ 4
#define VECTOR (VECTOR_IRQ_BASE + IRQ)

/* STI; HLT, and the address behind the HLT (interrupt.S). */
void enable_and_halt(void);
extern const uint8_t enable_and_halt_at[];

static volatile unsigned taken, identified, in_service;
static volatile uint64_t interrupted_rip, interrupted_flags;
static const char *volatile rest; /* of the text that interrupts send */

static void transmitter_empty(struct frame *frame) {
  taken++;
  identified += (inb(UART_IIR) & 0x0f) == UART_IIR_THRE; /* reading it takes the request back */
  in_service += (pic_in_service() & 1 << IRQ) != 0;
  interrupted_rip = frame->rip;
  interrupted_flags = frame->rflags;
  if (rest && *rest) {
    outb(UART_DATA, *rest);
    rest = rest + 1;
  } else {
    outb(UART_IER, 0);
  }
  pic_eoi(IRQ);
}

static void start(const char *text) {
  taken = identified = in_service = 0;
  rest = text;
  console_drain();
  outb(UART_IER, UART_IER_THRE); /* asks at once, for the transmitter is empty */
}

static uint64_t flags(void) {
  uint64_t value;
  __asm__ volatile("pushfq; popq %0" : "=r"(value) : : "memory");
  return value;
}

void visit_interrupts(void) {
  static const char text[] = "interrupt: this line was sent by interrupts\n";
  trap_handle(VECTOR, transmitter_empty);
  pic_mask(IRQ, 0);

  /* Printing would make the transmitter busy and take the request back, so that comes afterwards. */
  start(0);
  int requested = pic_requests() & 1 << IRQ;
  unsigned early = taken;
  enable_and_halt();
  __asm__ volatile("cli" : : : "memory");
  check(requested, "PIC: IRQ 4 requested");
  check_equal("with IF clear: interrupts taken", early, 0);
  check_equal("STI; HLT with one pending: interrupts taken", taken, 1);
  check(interrupted_rip == (uint64_t)enable_and_halt_at, "it woke the HLT: RIP is behind it");
  check(interrupted_flags & RFLAGS_IF, "RFLAGS.IF set in the frame");
  check_equal("UART: IIR named the transmitter", identified, 1);
  check_equal("PIC: IRQ 4 was in service", in_service, 1);
  check(!(pic_in_service() & 1 << IRQ), "PIC: not after the EOI");

  int enabled = 1;
  start(text);
  while (inb(UART_IER) & UART_IER_THRE) { /* IF clear here, or the last one might come before HLT */
    enable_and_halt();
    enabled &= (flags() & RFLAGS_IF) != 0;
    __asm__ volatile("cli" : : : "memory");
  }
  check(enabled, "IRET sets IF again");
  check_equal("one interrupt a character, and one to end", taken, sizeof text);

  start(0);
  pic_mask(IRQ, 1);
  __asm__ volatile("sti; nop; nop; cli" : : : "memory");
  outb(UART_IER, 0);
  check_equal("IRQ 4 masked: interrupts taken", taken, 0);
  trap_handle(VECTOR, 0);
}
