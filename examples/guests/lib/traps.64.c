#include "traps.h"

#include "console.h"
#include "cpu.h"
#include "exit.h"
#include "selectors.h"
#include "string.h"

#define GATE_INTERRUPT 0x8e
#define DPL3 0x60
#define TSS_AVAILABLE 0x89
#define STACK 4096
#define VECTORS 256
#define STUBS 48 /* the first so many vectors have an entry, and VECTOR_USER */
#define STUB_SIZE 16

extern const uint8_t vector_stubs[], vector_user_stub[]; /* vectors.S */
extern uint64_t gdt[];
extern void attempt_landing(void);
extern uint64_t attempt_stack; /* RSP to go back to, 0 when no attempt is under way */

struct gate idt[VECTORS] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(16)));
struct fault fault;

static trap_handler *handlers[VECTORS];
static uint8_t stacks[4][STACK] __attribute__((aligned(16))); /* RSP0, then IST 1 to 3 */

void trap_handle(unsigned vector, trap_handler *handler) {
  handlers[vector] = handler;
}

static void panic(const struct frame *f) {
  print("panic: vector %lu error %lx rip %lx cr2 %lx\n", f->vector, f->error, f->rip, read_cr2());
  guest_exit(2);
}

/* Called by vectors.S. */
void trap(struct frame *frame) {
  if (handlers[frame->vector]) {
    handlers[frame->vector](frame);
    return;
  }
  if (!attempt_stack) panic(frame);
  fault.vector = frame->vector;
  fault.error = frame->error;
  fault.cr2 = read_cr2();
  fault.frame = *frame;
  fault.stack = (uint64_t)frame;
  frame->rax = frame->vector;
  frame->rip = (uint64_t)attempt_landing;
  frame->cs = SEL_CODE64;
  frame->ss = SEL_DATA;
  frame->rsp = attempt_stack;
  frame->rflags = RFLAGS_FIXED;
}

static void load_tables(void) {
  struct {
    uint16_t limit;
    uint64_t base;
  } __attribute__((packed)) pointer = {sizeof idt - 1, (uint64_t)idt};
  __asm__ volatile("lidt %0" : : "m"(pointer));
  __asm__ volatile("ltr %w0" : : "r"(SEL_TSS));
}

static void set_gate(unsigned vector, const uint8_t *entry, uint8_t type) {
  uint64_t offset = (uint64_t)entry;
  idt[vector] = (struct gate){
      .offset_low = (uint16_t)offset,
      .selector = SEL_CODE64,
      .type = type,
      .offset_middle = (uint16_t)(offset >> 16),
      .offset_high = (uint32_t)(offset >> 32),
  };
}

void traps_init(void) {
  for (unsigned v = 0; v < STUBS; v++) set_gate(v, vector_stubs + v * STUB_SIZE, GATE_INTERRUPT);
  set_gate(VECTOR_USER, vector_user_stub, GATE_INTERRUPT | DPL3);
  idt[VECTOR_DF].ist = 1;
  idt[VECTOR_NMI].ist = 2;

  tss.rsp[0] = (uint64_t)stacks[0] + STACK;
  for (unsigned i = 0; i < 3; i++) tss.ist[i] = (uint64_t)stacks[i + 1] + STACK;
  tss.io_map_base = __builtin_offsetof(struct tss, io_map);
  memset(tss.io_map, 0xff, sizeof tss.io_map + 1);

  uint64_t base = (uint64_t)&tss, limit = sizeof tss - 1;
  uint64_t *descriptor = gdt + SEL_TSS / 8;
  descriptor[0] = (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)TSS_AVAILABLE << 40 |
                  (limit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56;
  descriptor[1] = base >> 32;
  load_tables();
}
