/* System calls, page faults, changes of address space, what leaves a virtual machine, and code that
 * writes code: compiled to both widths from one text. */
#include "system.h"
#include "apic.h"
#include "console.h"
#include "cpu.h"
#include "hashes.h"
#include "io.h"
#include "machine.h"
#include "measured.h"

#define PAGE_SIZE 4096
#define PRESENT_WRITE_USER 7
#define CALLS 100 /* calls, exits and so on in a round */
#define MSR_SYSENTER_ESP 0x175
#define MEMORY_APIC 0xfee00000ul

static uint8_t frames[WINDOW_PAGES * SPACES][PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static volatile uint32_t checksum; /* handlers add to it, too */

static void add(uint32_t value) {
  checksum = ((checksum << 5 | checksum >> 27) ^ value) * 0x9e3779b1u;
}

void system_call(uint32_t number, uint32_t argument) {
  add(argument + number);
}

/* SYSCALL and SYSRET, in 32-bit mode SYSENTER and SYSEXIT. */
static uint32_t fast(uint32_t rounds) {
  checksum = 0;
  enter_user(user_fast, rounds * CALLS);
  return checksum;
}

/* INT and IRET between ring 3 and ring 0. */
static uint32_t gate(uint32_t rounds) {
  checksum = 0;
  enter_user(user_gate, rounds * CALLS);
  return checksum;
}

static void map(unsigned space, unsigned page, unsigned frame) {
  *(volatile entry *)window_entry(space, page) = (entry)frames[frame] | PRESENT_WRITE_USER;
}

static inline void invalidate(const volatile void *address) {
  __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* Maps the page, as a kernel does when a program first touches it. */
void page_fault(unsigned long address) {
  unsigned page = (unsigned)((address - (unsigned long)window) / PAGE_SIZE);
  if (page >= WINDOW_PAGES) {
    print("system: page fault at %lx\n", address);
    for (;;) __asm__ volatile("cli; hlt");
  }
  map(0, page, page);
  add(page);
}

/* Page faults: pages touched, written, and taken away again. */
static uint32_t fault(uint32_t rounds) {
  checksum = 0;
  for (uint32_t n = 0; n < rounds; n++) {
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
      volatile uint32_t *at = (volatile uint32_t *)(window + page * PAGE_SIZE);
      add(*at);
      *at = n * 3 + page;
    }
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
      *(volatile entry *)window_entry(0, page) = 0;
      invalidate(window + page * PAGE_SIZE);
    }
  }
  return checksum;
}

/* Address spaces in turn, each with other frames in the window; a little work in each. */
static uint32_t spaces(uint32_t rounds) {
  checksum = 0;
  for (unsigned space = 0; space < SPACES; space++) {
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
      unsigned frame = space * WINDOW_PAGES + page;
      map(space, page, frame);
      for (unsigned i = 0; i < PAGE_SIZE; i++) frames[frame][i] = (uint8_t)(frame * 7 + i);
    }
  }
  for (uint32_t n = 0; n < rounds * SPACES; n++) {
    write_cr3(space_root(n % SPACES));
    for (unsigned page = 0; page < 16; page++) {
      volatile uint32_t *at = (volatile uint32_t *)(window + page * (PAGE_SIZE + 4));
      add(*at);
      *at += n;
    }
  }
  write_cr3(space_root(0));
  for (unsigned page = 0; page < WINDOW_PAGES; page++) *window_entry(0, page) = 0;
  write_cr3(space_root(0));
  return checksum;
}

/* OUT to a port that does nothing. */
static uint32_t out(uint32_t rounds) {
  for (uint32_t n = rounds * CALLS; n > 0; n--) outb(0x80, (uint8_t)n);
  return rounds;
}

/* CPUID; what it says is the machine's own. */
static uint32_t identify(uint32_t rounds) {
  uint32_t vendor = cpuid(0, 0).ebx;
  checksum = 0;
  for (uint32_t n = rounds * CALLS; n > 0; n--) add(cpuid(0, 0).ebx ^ vendor);
  return checksum + rounds;
}

/* WRMSR and RDMSR. */
static uint32_t msr(uint32_t rounds) {
  checksum = 0;
  for (uint32_t n = rounds * CALLS; n > 0; n--) {
    wrmsr(MSR_SYSENTER_ESP, n * 16);
    add((uint32_t)rdmsr(MSR_SYSENTER_ESP));
  }
  return checksum;
}

static volatile uint32_t *apic(unsigned reg) {
  return (volatile uint32_t *)(MEMORY_APIC + reg);
}

static int has_apic(void) {
  if (!(cpuid(1, 0).edx & 1u << 9)) return 0;
  outb(0x21, 0xff); /* firmware may have left the interval timer ticking through the 8259s */
  outb(0xa1, 0xff);
  *apic(APIC_SVR) = SVR_ENABLE | 0xff;
  return 1;
}

static volatile uint32_t interrupts;

void interrupt(void) {
  interrupts++;
  *apic(APIC_EOI) = 0;
}

/* IPIs to oneself. */
static uint32_t ipi(uint32_t rounds) {
  if (!has_apic()) return 0;
  interrupts = 0;
  __asm__ volatile("sti" : : : "memory");
  for (uint32_t n = 1; n <= rounds * CALLS; n++) {
    *apic(APIC_ICR) = ICR_SELF | ICR_ASSERT | VECTOR_INTERRUPT;
    while (interrupts != n) __asm__ volatile("pause" : : : "memory");
  }
  __asm__ volatile("cli" : : : "memory");
  return interrupts;
}

/* Sleeping until the local APIC's timer. */
static uint32_t timer(uint32_t rounds) {
  if (!has_apic()) return 0;
  interrupts = 0;
  *apic(APIC_TIMER_DIVIDE) = 0xb; /* by 1 */
  *apic(APIC_LVT_TIMER) = VECTOR_INTERRUPT;
  for (uint32_t n = 1; n <= rounds * CALLS; n++) {
    *apic(APIC_TIMER_INITIAL) = 1000;
    while (interrupts != n) __asm__ volatile("sti; hlt; cli" : : : "memory");
  }
  *apic(APIC_LVT_TIMER) = LVT_MASKED;
  return interrupts;
}

static uint8_t code[16 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static inline uint32_t call(const uint8_t *at) {
  uint32_t result;
  /* what is generated uses EAX alone */
  __asm__ volatile("call *%1" : "=a"(result) : "r"(at) : "memory", "cc");
  return result;
}

static uint8_t *emit32(uint8_t *at, uint32_t value) {
  *(volatile uint32_t *)at = value;
  return at + 4;
}

/* An instruction's operand is changed each time before it is executed. */
static uint32_t patch(uint32_t rounds) {
  code[0] = 0xb8; /* MOV EAX, imm32 */
  code[5] = 0xc3; /* RET */
  checksum = 0;
  for (uint32_t n = rounds * CALLS; n > 0; n--) {
    emit32(code + 1, n * 7);
    add(call(code));
  }
  return checksum;
}

/* Data is written beside the code that writes it, on the same page. */
static uint32_t beside(uint32_t rounds) {
  uint8_t *p = code;
  volatile uint32_t *data = (volatile uint32_t *)(code + 2048);
  *p++ = 0xb8, p = emit32(p, 1);                   /* MOV EAX, 1 */
  *p++ = 0x01, *p++ = 0x05;                        /* ADD [data], EAX */
  p = emit32(p, sizeof(long) == 8 ? (uint32_t)(code + 2048 - (p + 4)) : (uint32_t)(unsigned long)data);
  *p++ = 0xc3;
  *data = checksum = 0;
  for (uint32_t n = rounds * CALLS; n > 0; n--) {
    add(call(code));
    add(*data);
  }
  return checksum;
}

/* A compiler's work: new functions all the time, in a buffer used again and again, each called a hundred
 * times. */
static uint32_t generate(uint32_t rounds) {
  uint32_t random_state = 5;
  uint8_t *at = code;
  checksum = 0;
  for (uint32_t n = 0; n < rounds; n++) {
    if (at > code + sizeof code - 512) at = code;
    uint8_t *begin = at;
    *at++ = 0xb8, at = emit32(at, n);
    for (int i = 0; i < 24; i++) {
      uint32_t value = random_state = random_state * 1664525 + 1013904223;
      switch (value >> 30) {
        case 0: *at++ = 0x05, at = emit32(at, value); break;               /* ADD EAX, imm32 */
        case 1: *at++ = 0x35, at = emit32(at, value); break;               /* XOR EAX, imm32 */
        case 2: *at++ = 0x69, *at++ = 0xc0, at = emit32(at, value); break; /* IMUL EAX, EAX, imm32 */
        default: *at++ = 0xc1, *at++ = 0xc0, *at++ = value >> 8 & 31; break; /* ROL EAX, imm8 */
      }
    }
    *at++ = 0xc3;
    for (int i = 0; i < 100; i++) add(call(begin));
  }
  return checksum;
}

static const struct measured programs[] = {
    {"fast", fast}, {"gate", gate},     {"fault", fault}, {"spaces", spaces},
    {"out", out},   {"cpuid", identify}, {"msr", msr},     {"ipi", ipi},
    {"timer", timer}, {"patch", patch}, {"beside", beside}, {"generate", generate}};

void system_run(void) {
  measured_run("system", programs, sizeof programs / sizeof programs[0]);
}
