/* Exceptions and interrupts in 64-bit mode: tables, entry, and running code that may fault. */
#ifndef TRAPS_H
#define TRAPS_H
#include <stdint.h>

enum vector {
  VECTOR_DE = 0,
  VECTOR_NMI = 2,
  VECTOR_BP = 3,
  VECTOR_UD = 6,
  VECTOR_DF = 8,
  VECTOR_NP = 11,
  VECTOR_GP = 13,
  VECTOR_PF = 14,
  VECTOR_IRQ_BASE = 0x20, /* where the PICs are moved to */
  VECTOR_USER = 0x80      /* a gate that ring 3 may use */
};

/* Page-fault error code (AMD APM volume 2, 8.4.2). */
#define PF_PRESENT 1
#define PF_WRITE 2
#define PF_USER 4
#define PF_RESERVED 8
#define PF_FETCH 16

/* What is on the stack when trap() is called: pushed by vectors.S, then by the processor. */
struct frame {
  uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
  uint64_t vector, error;
  uint64_t rip, cs, rflags, rsp, ss;
};

/* A 64-bit gate descriptor and the task-state segment (AMD APM volume 2, 4.8.4 and 12.2.5). */
struct gate {
  uint16_t offset_low, selector;
  uint8_t ist, type;
  uint16_t offset_middle;
  uint32_t offset_high, reserved;
};
struct tss {
  uint32_t reserved0;
  uint64_t rsp[3];
  uint64_t reserved1;
  uint64_t ist[7];
  uint64_t reserved2;
  uint16_t reserved3, io_map_base;
  uint8_t io_map[8192]; /* one bit a port, 1 denies */
  uint8_t io_map_end;   /* FFh: a port's bits are read two bytes at a time */
} __attribute__((packed));

extern struct gate idt[256];
extern struct tss tss;

/* Fills IDT, TSS and the TSS descriptor and loads them. #DF runs on IST 1, NMI on IST 2; IST 3 is free
 * for a guest. All ports are denied to ring 3. */
void traps_init(void);

/* Called with the frame, which it may change. */
typedef void trap_handler(struct frame *frame);

/* Gives a vector to a handler; null takes it back. */
void trap_handle(unsigned vector, trap_handler *handler);

/* What ended an attempt. */
struct fault {
  uint64_t vector, error, cr2;
  struct frame frame; /* registers as they were */
  uint64_t stack;     /* where the frame was, to tell on which stack */
};
extern struct fault fault;

#define NO_FAULT (-1)

/* Calls f(a, b). If it ends in an exception that no handler takes, says which (the vector) and leaves
 * the particulars in `fault`; else NO_FAULT. The exception may come from ring 3. Attempts don't nest. */
int attempt(void *f, uint64_t a, uint64_t b);

#endif
